// Splitting, character classes and NFC against the reference, over all code points.
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/split_regex.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"
#include "tests/text/fuzz_text.h"

namespace prefill::test {
namespace {

std::string hex16(uint64_t h) {
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(h));
  return hex;
}

// The hash of the code points for which `holds` says so.
template <class Holds>
std::string hash_points(Holds holds) {
  uint64_t h = kFnvStart;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (!holds(c)) continue;
    const char bytes[4] = {char(c & 0xFF), char(c >> 8 & 0xFF), char(c >> 16 & 0xFF), 0};
    h = fnv1a({bytes, 4}, h);
  }
  return hex16(h);
}

std::string utf8(char32_t c) {
  std::string out;
  append_utf8(out, c);
  return out;
}

TEST(Rules, RegexClassesMatchTheReferencesCodePoints) {
  RegexScratch scratch;
  const auto rules = fixture_json("rules.json");
  ASSERT_GE(rules["classes"].size(), 16u);
  for (const auto& [pattern, expected] : rules["classes"].items()) {
    const SplitRegex regex(pattern);
    EXPECT_EQ(hash_points([&](char32_t c) {
                const std::string text = utf8(c);
                bool whole = false;
                regex.for_each_match(text, scratch, [&](size_t begin, size_t end) {
                  whole = begin == 0 && end == text.size();
                });
                return whole;
              }),
              expected)
        << pattern;
  }
}

TEST(Rules, DigitsAndWordsAreTheReferences) {
  const auto rules = fixture_json("rules.json");
  EXPECT_EQ(hash_points(is_numeric), rules["numeric"]);
  EXPECT_EQ(hash_points([](char32_t c) { return is_word(c); }), rules["word"]);
}

TEST(Rules, NfcIsTheReferences) {
  const auto rules = fixture_json("rules.json");
  uint64_t h = kFnvStart;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string one = utf8(c);
    for (const std::string& text :
         {one, "a" + one + "\u0316", "q\u0301" + one, "q\u0315\u0345" + one + "\u0334", "\uac00" + one})
      h = fnv1a(nfc(text), h);
  }
  EXPECT_EQ(hex16(h), rules["nfc"]);
  const auto parts = fixture_json("fuzz_parts.json");
  const std::string bases[] = {"a", "e", "o", "A", "Ω", "か", "ह", "가", "ᄀ"};
  Dice dice(2026);
  h = kFnvStart;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (uint64_t n = 1 + dice.below(12); n-- > 0;) {
      const auto& range = parts["marks"][dice.below(parts["marks"].size())];
      const auto low = range[0].get<uint64_t>(), high = range[1].get<uint64_t>();
      if (dice.below(4))
        append_utf8(text, char32_t(low + dice.below(high - low + 1)));
      else
        text += bases[dice.below(9)];
    }
    h = fnv1a(nfc(text), h);
  }
  EXPECT_EQ(hex16(h), rules["nfc_mixed"]);
}

TEST(Rules, LongRunsOfMarksAreOrderedInTime) {
  std::string marks = "a";
  for (int i = 0; i < 100000; ++i)
    marks += i % 2 ? "\u0301" : "\u0316";  // would be quadratic by exchanging neighbours
  const std::string out = nfc(marks);
  EXPECT_EQ(out.substr(0, 4), "\u00e1\u0316");
  EXPECT_EQ(nfc(out), out);
}

TEST(Rules, SplittingGivesTheReferencesPieces) {
  const auto rules = fixture_json("rules.json");
  RegexScratch scratch;
  for (const auto& split : rules["splits"]) {
    const auto chain = read_pre_tokenizers(JsonView(split["rule"], "rules.json"));
    ASSERT_EQ(chain.stages.size(), 1u);
    for (size_t i = 0; i < rules["texts"].size(); ++i) {
      const std::string text = rules["texts"][i];
      PieceStore store;
      std::vector<Piece> pieces;
      if (!text.empty()) chain.stages[0]->split({text, true}, store, scratch, pieces);
      std::vector<std::string> got;
      for (const Piece& piece : pieces) got.emplace_back(piece.text);
      EXPECT_EQ(got, split["pieces"][i].get<std::vector<std::string>>())
          << split["rule"] << " on '" << text << "'";
    }
  }
}

TEST(Rules, ConstructsWithoutTranslationAreRefused) {
  for (const char* pattern :
       {R"([a-z&&[^aeiou]])", R"([[:alpha:]])", R"(\p{Script=Greek})", R"(\X)", R"([\P{L}])", R"((?#x)a)",
        R"(a\)", R"([abc)", R"(a)b)", R"(\G)", R"((*ACCEPT))", R"(\1)", R"((?i)straße)", R"((?i:a|press))",
        R"((?i:a)(?i)sT)", R"((?i:[a-zé]))", R"((?i)[\p{L}x])"})
    EXPECT_THROW(SplitRegex{pattern}, InputError) << pattern;
  for (const char* fine :
       {"(?i:s)s", "straße|(?i:k)", "(?i:(?-i:ss)x)", "(?i:'s|'t|'re|'ve|'m|'ll|'d)", R"((?i:\d[a-z]))"})
    EXPECT_NO_THROW(SplitRegex{fine}) << fine;
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
