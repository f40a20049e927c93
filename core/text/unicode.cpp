#include "core/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "core/text/utf8.h"

namespace prefill {
namespace {

bool contains(std::span<const CodePointRange> ranges, char32_t c) {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), c,
                             [](char32_t value, const CodePointRange& r) { return value < r.first; });
  return it != ranges.begin() && c <= std::prev(it)->last;
}

// Below U+0300 nothing decomposes under NFC, combines, or reorders.
constexpr char32_t kFirstMark = 0x300;

// One stretch without code points that the reference's NFC does not know.
void append_nfc(std::string& out, std::string_view text) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    utf8proc_int32_t parts[8];
    int last_class = 0;
    const auto n = utf8proc_decompose_char(utf8proc_int32_t(c), parts, 8, UTF8PROC_DECOMPOSE, &last_class);
    if (n < 1 || n > 8)
      throw std::logic_error("utf8proc: a canonical decomposition of more than 8 code points");
    points.insert(points.end(), parts, parts + n);
  }
  // Canonical ordering. A stable sort of every run of marks keeps long runs from going quadratic.
  const auto combining = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (size_t i = 0; i < points.size();) {
    if (combining(points[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < points.size() && combining(points[end]) != 0) ++end;
    std::stable_sort(points.begin() + long(i), points.begin() + long(end),
                     [&](auto a, auto b) { return combining(a) < combining(b); });
    i = end;
  }
  const auto n = utf8proc_normalize_utf32(points.data(), utf8proc_ssize_t(points.size()),
                                          utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (n < 0) throw std::logic_error("utf8proc: normalization failed");
  for (utf8proc_ssize_t i = 0; i < n; ++i) append_utf8(out, char32_t(points[size_t(i)]));
}

}  // namespace

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x9 && c <= 0xD);
  return contains(space_ranges, c);
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  switch (utf8proc_category(utf8proc_int32_t(c))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return contains(numeric_extra, c);
  }
}

bool is_word(char32_t c) {
  switch (utf8proc_category(utf8proc_int32_t(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return contains(word_extra, c);
  }
}

bool surely_nfc(std::string_view text) {
  // U+0300 is CC 80: every lead byte below that starts a code point below the first mark.
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

std::string nfc(std::string_view text) {
  if (surely_nfc(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t here = pos;
    const char32_t c = next_code_point(text, pos);
    if (c < kFirstMark || !contains(nfc_unknown, c)) continue;
    append_nfc(out, text.substr(start, here - start));
    out.append(text.substr(here, pos - here));
    start = pos;
  }
  append_nfc(out, text.substr(start));
  return out;
}

}  // namespace prefill
