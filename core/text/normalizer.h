// Normalizers of tokenizer.json: what is done to the text before it is split.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/json_view.h"
#include "core/text/split_regex.h"

namespace prefill {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// True when `text` would come back as it is, told without doing the work.
  virtual bool leaves_alone(std::string_view text) const = 0;
  virtual std::string apply(std::string_view text, RegexScratch& scratch) const = 0;
};

/// Null for a null value. Supported: NFC, Prepend, Replace, Sequence. Throws InputError naming any other
/// type.
std::unique_ptr<Normalizer> read_normalizer(const JsonView& json);

/// {"String": "..."} or {"Regex": "..."} as Split and Replace have it. Throws InputError at its place.
SplitRegex read_pattern(const JsonView& json);

/// Every match of `pattern` replaced by `content`, no back-references.
std::string replace_matches(std::string_view text, const SplitRegex& pattern, std::string_view content,
                            RegexScratch& scratch);

}  // namespace prefill
