// UTF-8: strict checking, stepping through code points, and the lossy reading of decoded bytes.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace prefill {

/// Byte offset of the first ill-formed sequence (Unicode 15, table 3-7: no overlong forms, no surrogates,
/// nothing past U+10FFFF, no truncated tail), or std::string_view::npos.
size_t find_invalid_utf8(std::string_view text);

/// Throws InputError "`what`: invalid UTF-8 at byte N (0x..)" when the text is not well-formed.
void require_utf8(std::string_view text, std::string_view what);

/// The code point at `pos` of well-formed UTF-8; moves `pos` past it.
inline char32_t next_code_point(std::string_view text, size_t& pos) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + pos;
  if (p[0] < 0x80) return pos += 1, p[0];
  if (p[0] < 0xE0) return pos += 2, char32_t(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
  if (p[0] < 0xF0) return pos += 3, char32_t(p[0] & 0x0F) << 12 | char32_t(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
  return pos += 4, char32_t(p[0] & 0x07) << 18 | char32_t(p[1] & 0x3F) << 12 | char32_t(p[2] & 0x3F) << 6 |
                       (p[3] & 0x3F);
}

/// The code point that ends at `end` (> 0) of well-formed UTF-8.
char32_t last_code_point(std::string_view text, size_t end);

void append_utf8(std::string& out, char32_t c);

/// The bytes as text; every maximal ill-formed part becomes one U+FFFD (Unicode 3.9, as Rust and Python do
/// it).
std::string utf8_lossy(std::string_view bytes);

}  // namespace prefill
