#include "tasks/scoring/unicode.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/utf8.h"

namespace prefill::scoring {
namespace {

struct Range {
  char32_t first, last;
};
struct CaseRun {  // every `step`th code point of first..last moves by delta
  char32_t first, last;
  int step, delta;
};
struct CaseSpecial {
  char32_t from;
  char32_t to[3];  // padded with 0
};
#include "tasks/scoring/unicode_tables.inc"

template <size_t N>
bool within(const Range (&ranges)[N], char32_t c) {
  auto it = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                             [](char32_t x, const Range& r) { return x < r.first; });
  return it != std::begin(ranges) && c <= std::prev(it)->last;
}

template <size_t N, size_t M>
void change_case(std::u32string& out, char32_t c, const CaseRun (&runs)[N], const CaseSpecial (&special)[M]) {
  for (const CaseSpecial& s : special) {
    if (s.from != c) continue;
    for (char32_t x : s.to)
      if (x) out.push_back(x);
    return;
  }
  // Runs with step 2 may interleave with other runs that start inside them, so look at a few before the
  // bound.
  auto it = std::upper_bound(std::begin(runs), std::end(runs), c,
                             [](char32_t x, const CaseRun& r) { return x < r.first; });
  for (int back = 0; back < 4 && it != std::begin(runs); ++back) {
    --it;
    if (c <= it->last && (c - it->first) % it->step == 0) {
      out.push_back(char32_t(int64_t(c) + it->delta));
      return;
    }
  }
  out.push_back(c);
}

// Unicode's Final_Sigma as CPython applies it: a cased letter before and none after, case-ignorable ones
// skipped.
bool final_sigma(std::u32string_view text, size_t at) {
  size_t i = at;
  while (i > 0 && within(ignorable_ranges, text[i - 1])) --i;
  if (i == 0 || !within(cased_ranges, text[i - 1])) return false;
  size_t j = at + 1;
  while (j < text.size() && within(ignorable_ranges, text[j])) ++j;
  return j == text.size() || !within(cased_ranges, text[j]);
}

// Length of the UTF-8 sequence at p, 0 when it is not valid. Table 3-7 of the Unicode standard.
size_t sequence_length(const unsigned char* p, size_t left) {
  auto tail = [&](size_t i) { return i < left && (p[i] & 0xC0) == 0x80; };
  if (p[0] < 0x80) return 1;
  if (p[0] >= 0xC2 && p[0] <= 0xDF) return tail(1) ? 2 : 0;
  if (p[0] >= 0xE0 && p[0] <= 0xEF) {
    if (!tail(1) || !tail(2)) return 0;
    if (p[0] == 0xE0 && p[1] < 0xA0) return 0;
    if (p[0] == 0xED && p[1] > 0x9F) return 0;
    return 3;
  }
  if (p[0] >= 0xF0 && p[0] <= 0xF4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (p[0] == 0xF0 && p[1] < 0x90) return 0;
    if (p[0] == 0xF4 && p[1] > 0x8F) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

size_t invalid_utf8(std::string_view bytes) {
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  size_t i = 0, n = bytes.size();
  while (i < n) {
    uint64_t word;
    while (i + 8 <= n && (std::memcpy(&word, p + i, 8), (word & 0x8080808080808080ull) == 0)) i += 8;
    if (i >= n) break;
    size_t len = sequence_length(p + i, n - i);
    if (!len) return i;
    i += len;
  }
  return std::string_view::npos;
}

std::u32string decode_utf8(std::string_view bytes) {
  std::u32string out;
  out.reserve(bytes.size());
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  for (size_t i = 0; i < bytes.size();) {
    size_t len = sequence_length(p + i, bytes.size() - i);
    switch (len) {
      case 1:
        out.push_back(p[i]);
        break;
      case 2:
        out.push_back((p[i] & 0x1Fu) << 6 | (p[i + 1] & 0x3Fu));
        break;
      case 3:
        out.push_back((p[i] & 0x0Fu) << 12 | (p[i + 1] & 0x3Fu) << 6 | (p[i + 2] & 0x3Fu));
        break;
      case 4:
        out.push_back((p[i] & 0x07u) << 18 | (p[i + 1] & 0x3Fu) << 12 | (p[i + 2] & 0x3Fu) << 6 |
                      (p[i + 3] & 0x3Fu));
        break;
      default:
        throw InputError(str("not UTF-8 at byte ", i));
    }
    i += len;
  }
  return out;
}

std::string encode_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char32_t c : text) {
    append_utf8(out, c >= 0xD800 && c <= 0xDFFF ? 0xFFFD : c);
  }
  return out;
}

bool is_space(char32_t c) {
  if (c <= 0x20) return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(char32_t c) { return within(word_ranges, c); }

int digit_value(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9' ? int(c - '0') : -1;
  auto it = std::upper_bound(std::begin(digit_zeros), std::end(digit_zeros), c);
  if (it == std::begin(digit_zeros)) return -1;
  char32_t zero = *std::prev(it);
  return c - zero < 10 ? int(c - zero) : -1;
}

std::u32string lower(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char32_t c = text[i];
    if (c < 0x80)
      out.push_back(c >= 'A' && c <= 'Z' ? c + 32 : c);
    else if (c == 0x3A3)
      out.push_back(final_sigma(text, i) ? 0x3C2 : 0x3C3);
    else
      change_case(out, c, lower_runs, lower_special);
  }
  return out;
}

std::u32string upper(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (char32_t c : text) {
    if (c < 0x80)
      out.push_back(c >= 'a' && c <= 'z' ? c - 32 : c);
    else
      change_case(out, c, upper_runs, upper_special);
  }
  return out;
}

std::u32string_view strip(std::u32string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::vector<std::u32string_view> split(std::u32string_view text) {
  std::vector<std::u32string_view> out;
  for (size_t i = 0; i < text.size();) {
    while (i < text.size() && is_space(text[i])) ++i;
    size_t from = i;
    while (i < text.size() && !is_space(text[i])) ++i;
    if (i > from) out.push_back(text.substr(from, i - from));
  }
  return out;
}

std::u32string replace_all(std::u32string_view text, std::u32string_view from, std::u32string_view to) {
  std::u32string out;
  out.reserve(text.size());
  size_t at = 0;
  for (size_t hit; (hit = text.find(from, at)) != std::u32string_view::npos; at = hit + from.size()) {
    out += text.substr(at, hit - at);
    out += to;
  }
  out += text.substr(at);
  return out;
}

std::u32string blank(std::u32string text, const std::vector<std::u32string_view>& what) {
  for (std::u32string_view w : what) {
    if (w.size() == 1)
      std::replace(text.begin(), text.end(), w[0], U' ');
    else
      text = replace_all(text, w, U" ");
  }
  return text;
}

std::u32string collapse_spaces(std::u32string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (char32_t c : text)
    if (c != ' ' || out.empty() || out.back() != ' ') out.push_back(c);
  return out;
}

}  // namespace prefill::scoring
