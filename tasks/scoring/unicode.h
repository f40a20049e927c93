// Text as Python sees it: sequences of code points, with Python's idea of case, white space, digits and
// words. The official scorers are Python programs, so exact scores need exactly this (tables of Python 3.11,
// Unicode 14).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace prefill::scoring {

/// Code points of UTF-8 text. Lone surrogates may stand in the result of json.h, never in valid UTF-8.
/// Throws InputError with the byte offset when the bytes are not UTF-8.
std::u32string decode_utf8(std::string_view bytes);
/// UTF-8 of code points; a lone surrogate, which UTF-8 can not carry, becomes U+FFFD.
std::string encode_utf8(std::u32string_view text);
/// Offset of the first byte that is not part of valid UTF-8 (no surrogates, nothing past U+10FFFF); npos:
/// none.
size_t invalid_utf8(std::string_view bytes);

bool is_space(char32_t c);    ///< str.isspace(): the WS of the specification
bool is_word(char32_t c);     ///< \w of the re module: letters, numbers, underscore
int digit_value(char32_t c);  ///< 0..9 for decimal digits of any script, else -1

std::u32string lower(std::u32string_view text);  ///< str.lower(), final sigma included
std::u32string upper(std::u32string_view text);  ///< str.upper(), one-to-many changes included

std::u32string_view strip(std::u32string_view text);               ///< str.strip()
std::vector<std::u32string_view> split(std::u32string_view text);  ///< str.split(): runs without white space
std::u32string replace_all(std::u32string_view text, std::u32string_view from, std::u32string_view to);
/// Each of `what` becomes one space, in the listed order, everywhere.
std::u32string blank(std::u32string text, const std::vector<std::u32string_view>& what);
/// Runs of U+0020 become one; other white space stays.
std::u32string collapse_spaces(std::u32string_view text);
inline bool starts_with(std::u32string_view text, std::u32string_view prefix) {
  return text.starts_with(prefix);
}

}  // namespace prefill::scoring
