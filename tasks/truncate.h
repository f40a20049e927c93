// Middle truncation, as the official runners do it.
#pragma once
#include <cstdint>
#include <string>

#include "core/text/tokenizer.h"

namespace prefill {

struct Truncated {
  std::string text;
  int64_t tokens = 0;           ///< of `text`, special tokens included
  int64_t original_tokens = 0;  ///< before
  bool cut = false;
};

/// The text itself when it has at most `limit` tokens, special ones included. Else the first floor(limit/2)
/// and the last floor(limit/2) ids (`tail_ceil`: ceil(limit/2), as the official GPT-4 runner), decoded
/// without special tokens. The model encodes that text again, which adds the special tokens once more and may
/// merge across the cut: `tokens` is what it will see (OpenBMB/InfiniteBench eval_yarn_mistral.py;
/// specification 1.4).
Truncated truncate_middle(const std::string& text, int64_t limit, const Tokenizer& tokenizer, bool tail_ceil);

}  // namespace prefill
