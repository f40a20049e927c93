// Token F1: longbook_qa_eng (2.8) over words, longbook_qa_chn (2.9) over single code points.
#include <algorithm>
#include <unordered_map>

#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

bool is_ascii_punctuation(char32_t c) {
  return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
         (c >= 0x7B && c <= 0x7E);
}

// The 75 code points of `cn_punctuation` in compute_scores.py. U+300B is there and U+300A is not, so a book
// title keeps its left bracket as a token; U+3008, U+00B7 and U+FF0E are missing as well.
bool is_cn_punctuation(char32_t c) {
  static constexpr struct {
    char32_t first, last;
  } ranges[] = {{0x2E, 0x2E},     {0x2013, 0x2014}, {0x2018, 0x2019}, {0x201B, 0x201F},
                {0x2026, 0x2027}, {0x3001, 0x3003}, {0x300B, 0x3011}, {0x3014, 0x301F},
                {0x3030, 0x3030}, {0x303E, 0x303F}, {0xFE4F, 0xFE4F}, {0xFF01, 0xFF0D},
                {0xFF0F, 0xFF0F}, {0xFF1A, 0xFF20}, {0xFF3B, 0xFF40}, {0xFF5B, 0xFF64}};
  for (const auto& r : ranges)
    if (c >= r.first && c <= r.last) return true;
  return false;
}

std::vector<std::u32string> english_tokens(const std::u32string& text) {
  std::u32string plain = lower(text);
  std::erase_if(plain, is_ascii_punctuation);
  // \b(a|an|the)\b: whole runs of word characters
  std::u32string out;
  for (size_t i = 0; i < plain.size();) {
    size_t from = i;
    while (i < plain.size() && is_word(plain[i])) ++i;
    std::u32string_view word = std::u32string_view(plain).substr(from, i - from);
    if (word == U"a" || word == U"an" || word == U"the")
      out += U' ';
    else
      out += word;
    if (i < plain.size()) out += plain[i++];
  }
  std::vector<std::u32string> tokens;
  for (std::u32string_view word : split(out)) tokens.emplace_back(word);
  return tokens;
}

std::u32string chinese_tokens(const std::u32string& text) {
  std::u32string out = lower(text);
  std::erase_if(out,
                [](char32_t c) { return is_ascii_punctuation(c) || is_cn_punctuation(c) || is_space(c); });
  return out;
}

// Counter(a) & Counter(b), then F1 in the order of operations of the released function.
template <class Tokens>
double f1(const Tokens& pred, const Tokens& label) {
  std::unordered_map<typename Tokens::value_type, int64_t> left;
  for (const auto& t : label) ++left[t];
  int64_t common = 0;
  for (const auto& t : pred)
    if (auto it = left.find(t); it != left.end() && it->second > 0) {
      --it->second;
      ++common;
    }
  if (common == 0) return 0;
  double precision = double(common) / double(pred.size()), recall = double(common) / double(label.size());
  return (2 * precision * recall) / (precision + recall);
}

template <class Tokenize>
double best_f1(const Value& pred, const Value& labels, Tokenize&& tokenize) {
  double best = 0;
  for (const Value& label : iterate(labels))
    best = std::max(best, f1(tokenize(pred.str("prediction")), tokenize(label.str("label"))));
  return best;
}

}  // namespace

double score_qa_english(const Value& pred, const Value& labels) {
  return best_f1(pred, labels, english_tokens);
}
double score_qa_chinese(const Value& pred, const Value& labels) {
  return best_f1(pred, labels, chinese_tokens);
}

}  // namespace prefill::scoring
