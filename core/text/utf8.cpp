#include "core/text/utf8.h"

#include <cstdio>
#include <cstring>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

// Length of the well-formed sequence at p (1-4), or minus the length of its maximal ill-formed part.
int sequence_length(const unsigned char* p, size_t left) {
  const unsigned char a = p[0];
  if (a < 0x80) return 1;
  int need;
  unsigned char low = 0x80, high = 0xBF;  // the second byte's range
  if (a >= 0xC2 && a <= 0xDF) {
    need = 2;
  } else if (a >= 0xE0 && a <= 0xEF) {
    need = 3;
    if (a == 0xE0) low = 0xA0;
    if (a == 0xED) high = 0x9F;
  } else if (a >= 0xF0 && a <= 0xF4) {
    need = 4;
    if (a == 0xF0) low = 0x90;
    if (a == 0xF4) high = 0x8F;
  } else {
    return -1;
  }
  for (int i = 1; i < need; ++i) {
    if (size_t(i) >= left || p[i] < low || p[i] > high) return -i;
    low = 0x80, high = 0xBF;
  }
  return need;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  size_t i = 0;
  while (i < text.size()) {
    if (i + 8 <= text.size()) {  // eight ASCII bytes at a time
      uint64_t chunk;
      std::memcpy(&chunk, p + i, 8);
      if (!(chunk & 0x8080808080808080ull)) {
        i += 8;
        continue;
      }
    }
    const int n = sequence_length(p + i, text.size() - i);
    if (n < 0) return i;
    i += size_t(n);
  }
  return std::string_view::npos;
}

void require_utf8(std::string_view text, std::string_view what) {
  const size_t bad = find_invalid_utf8(text);
  if (bad == std::string_view::npos) return;
  char hex[8];
  std::snprintf(hex, sizeof hex, "0x%02X", unsigned(static_cast<unsigned char>(text[bad])));
  throw InputError(
      str(what, ": invalid UTF-8 at byte ", bad, " (", hex, "); tokenizers take well-formed UTF-8 only"));
}

char32_t last_code_point(std::string_view text, size_t end) {
  size_t pos = end - 1;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80) --pos;
  return next_code_point(text, pos);
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += char(0xC0 | c >> 6);
    out += char(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += char(0xE0 | c >> 12);
    out += char(0x80 | (c >> 6 & 0x3F));
    out += char(0x80 | (c & 0x3F));
  } else {
    out += char(0xF0 | c >> 18);
    out += char(0x80 | (c >> 12 & 0x3F));
    out += char(0x80 | (c >> 6 & 0x3F));
    out += char(0x80 | (c & 0x3F));
  }
}

std::string utf8_lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  for (size_t i = 0; i < bytes.size();) {
    const int n = sequence_length(p + i, bytes.size() - i);
    if (n > 0)
      out.append(bytes.substr(i, size_t(n)));
    else
      out += "\xEF\xBF\xBD";
    i += size_t(n > 0 ? n : -n);
  }
  return out;
}

}  // namespace prefill
