// Prompts of exactly N tokens under a given tokenizer.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/text/tokenizer.h"

namespace prefill {

/// Filler of about `words` tokens: one sentence of short common words, each a single token in the
/// vocabularies at hand, and `tail` extra characters for vocabularies in which they are not. words < 0:
/// nothing.
struct Padding {
  int64_t words = -1;
  int tail = 0;
  std::string text() const;  ///< "" or "Then and so it went on."
};

/// What to build a prompt from: so many units (noise lines, pairs, numbers, functions) and a padding
/// sentence.
using BuildPrompt = std::function<std::string(int64_t units, const std::string& padding)>;

struct Fitted {
  int64_t units = 0;
  Padding padding;
};

/// Finds units >= min_units and a padding such that tokenizer.encode(build(units, padding)) has exactly
/// `tokens` ids, special tokens included. The padding is less than about two units long, and as much longer
/// as lengths of neighbouring numbers of units scatter. Prompts need not be additive in their parts, nor grow
/// with every unit: the result is checked by encoding. Throws InputError when `tokens` is too small (naming
/// the least that would do) or no such prompt is found. `what` names the task in messages.
Fitted fit_exactly(const BuildPrompt& build, int64_t min_units, int64_t tokens, const Tokenizer& tokenizer,
                   const std::string& what);

}  // namespace prefill
