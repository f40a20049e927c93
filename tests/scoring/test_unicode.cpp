// Every code point against digests of what Python's str methods say (scripts/make_unicode_tables.py).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

template <class F>
std::string digest(F&& answer) {
  Sha256 sha;
  for (char32_t c = 0; c <= 0x10FFFF; ++c)
    if (c < 0xD800 || c > 0xDFFF) sha.update(answer(c));
  return sha.hex();
}

TEST(Unicode, EveryCodePointIsWhatPythonSays) {
  const auto want =
      nlohmann::json::parse(std::ifstream(PREFILL_SOURCE_DIR "/tests/scoring/unicode_digests.json"));
  auto line = [](const std::u32string& s) { return encode_utf8(s) + "\n"; };
  using S = std::u32string;
  EXPECT_EQ(digest([&](char32_t c) { return line(lower(S{c})); }), want["lower"]);
  EXPECT_EQ(digest([&](char32_t c) { return line(upper(S{c})); }), want["upper"]);
  EXPECT_EQ(digest([](char32_t c) { return is_space(c) ? "1" : "0"; }), want["space"]);
  EXPECT_EQ(digest([](char32_t c) { return is_word(c) ? "1" : "0"; }), want["word"]);
  EXPECT_EQ(digest([](char32_t c) { return digit_value(c) < 0 ? "-" : std::to_string(digit_value(c)); }),
            want["digit"]);
  EXPECT_EQ(digest([&](char32_t c) { return line(lower(S{c, 0x3A3})); }), want["sigma_before"]);
  EXPECT_EQ(digest([&](char32_t c) { return line(lower(S{'A', c, 0x3A3})); }), want["sigma_between"]);
  EXPECT_EQ(digest([&](char32_t c) { return line(lower(S{'A', 0x3A3, c})); }), want["sigma_after"]);
}

TEST(Unicode, Utf8RoundTripAndRefusal) {
  const std::string text = "a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80";
  EXPECT_EQ(decode_utf8(text), U"a\u00e9\u4e2d\U0001f600");
  EXPECT_EQ(encode_utf8(decode_utf8(text)), text);
  // overlong, surrogate, past the end, cut short, stray tail: each found at its first byte, after eight good
  // ones too
  for (const char* bad :
       {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF0\x9F\x98", "\x80"})
    for (const std::string& good : {std::string(), std::string("abc"), std::string("12345678\xC3\xA9")}) {
      EXPECT_EQ(invalid_utf8(good + bad), good.size()) << testing::PrintToString(bad);
      EXPECT_THROW(decode_utf8(good + bad), InputError);
    }
  EXPECT_EQ(invalid_utf8(text + text + text), std::string_view::npos);
}

}  // namespace
}  // namespace prefill::scoring
