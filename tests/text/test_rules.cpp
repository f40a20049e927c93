// UTF-8, NFC and regular expressions: what needs no reference library to say what is right.
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/text/split_regex.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace prefill::test {
namespace {

TEST(Rules, LongRunsOfMarksAreOrderedInTime) {
  std::string marks = "a";
  for (int i = 0; i < 100000; ++i)
    marks += i % 2 ? "\u0301" : "\u0316";  // would be quadratic by exchanging neighbours
  const std::string out = nfc(marks);
  EXPECT_EQ(out.substr(0, 4), "\u00e1\u0316");
  EXPECT_EQ(nfc(out), out);
}

TEST(Rules, ConstructsWithoutTranslationAreRefused) {
  for (const char* pattern :
       {R"([a-z&&[^aeiou]])", R"([[:alpha:]])", R"(\p{Script=Greek})", R"(\X)", R"([\P{L}])", R"((?#x)a)",
        R"(a\)", R"([abc)", R"(a)b)", R"(\G)", R"((*ACCEPT))", R"(\1)"})
    EXPECT_THROW(SplitRegex{pattern}, InputError) << pattern;
  try {
    SplitRegex(R"(ab\X)");
    FAIL();
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("character 3: \\X"), std::string::npos) << e.what();
  }
}

TEST(Rules, InvalidUtf8IsFoundAtItsOffset) {
  const auto at = [](std::string_view text) { return find_invalid_utf8(text); };
  const size_t fine = std::string_view::npos;
  EXPECT_EQ(at(""), fine);
  EXPECT_EQ(at("plain ASCII text, long enough for the fast path"), fine);
  EXPECT_EQ(at("\u0000\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff"), fine);
  EXPECT_EQ(at("\xed\x9f\xbf\xee\x80\x80"), fine);  // either side of the surrogates
  EXPECT_EQ(at("12345678901\x80"), 11u);            // a lone continuation byte
  EXPECT_EQ(at("ab\xc0\xaf"), 2u);                  // overlong, two bytes
  EXPECT_EQ(at("ab\xc1\xbf"), 2u);
  EXPECT_EQ(at("\xe0\x9f\xbf"), 0u);       // overlong, three bytes
  EXPECT_EQ(at("x\xf0\x8f\xbf\xbf"), 1u);  // overlong, four bytes
  EXPECT_EQ(at("é\xed\xa0\x80"), 2u);      // a surrogate
  EXPECT_EQ(at("\xf4\x90\x80\x80"), 0u);   // past U+10FFFF
  EXPECT_EQ(at("\xf5\x80\x80\x80"), 0u);
  EXPECT_EQ(at("日本\xe6\x97"), 6u);  // cut off
  EXPECT_EQ(at("\xf0\x9f\x98"), 0u);
  EXPECT_EQ(at("\xff"), 0u);
}

TEST(Rules, LossyTextReplacesMaximalIllFormedParts) {
  EXPECT_EQ(utf8_lossy("a\xf0\x9f\x98z"), "a\uFFFDz");          // one for a cut sequence
  EXPECT_EQ(utf8_lossy("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate: every byte
  EXPECT_EQ(utf8_lossy("\xc0\xaf\xff"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8_lossy("\xe6\x97\xe6\x97\xa5"), "\uFFFD日");
}

}  // namespace
}  // namespace prefill::test
