// Character classes and NFC as the reference tokenizers see them (their Unicode versions, not ours).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace prefill {

struct CodePointRange {
  uint32_t first, last;
};  ///< inclusive

/// White_Space: `\s` of the regex engine and what lstrip / rstrip of added tokens strip.
bool is_space(char32_t c);
/// N (digits, letter numbers, others): what the Digits pre-tokenizer isolates.
bool is_numeric(char32_t c);
/// `\w` as single_word of added tokens uses it.
bool is_word(char32_t c);

/// Canonical composition of well-formed UTF-8, by the Unicode version of the reference.
std::string nfc(std::string_view text);
/// True when nfc() can not change the text (a quick check: false does not mean that it will).
bool surely_nfc(std::string_view text);

/// What the reference's regex engine has in a class beyond PCRE2 (Unicode 14): general categories by name,
/// and "w".
struct RegexClassExtra {
  const char* name;  ///< null ends the table
  const CodePointRange *begin, *end;
};
extern const RegexClassExtra regex_class_extras[];  // unicode_tables.cpp, generated
extern const std::span<const CodePointRange> numeric_extra, word_extra, nfc_unknown, space_ranges;

}  // namespace prefill
