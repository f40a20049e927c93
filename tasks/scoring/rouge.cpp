// rougeLsum as google's rouge_score computes it (union LCS with clipped counts), which is what the `evaluate`
// library runs for longbook_sum_eng. No stemming, no aggregation. Reference: rouge_scorer.py,
// _summary_level_lcs.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

using Line = std::vector<int32_t>;

// Tokens are numbers from here on: one table for both texts.
class Vocabulary {
 public:
  std::vector<Line> lines(std::u32string_view text) {
    std::vector<Line> out;
    for (size_t at = 0; at <= text.size();) {
      size_t end = std::min(text.find(U'\n', at), text.size());
      if (end > at) out.push_back(tokens(text.substr(at, end - at)));
      at = end + 1;
    }
    return out;
  }
  size_t size() const { return ids_.size(); }

 private:
  // Lower case first (a Kelvin sign becomes an ASCII k), then runs of [a-z0-9].
  Line tokens(std::u32string_view text) {
    Line out;
    std::string token;
    auto flush = [&] {
      if (!token.empty()) out.push_back(ids_.emplace(token, int32_t(ids_.size())).first->second);
      token.clear();
    };
    for (char32_t c : lower(text))
      if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
        token += char(c);
      else
        flush();
    flush();
    return out;
  }
  std::unordered_map<std::string, int32_t> ids_;
};

// Marks the positions of `ref` in one longest common subsequence with `can`, the one that reading the table
// back from the bottom right finds: equal tokens are taken, else left if that cell is strictly larger, else
// up.
void mark_lcs(const Line& ref, const Line& can, std::vector<bool>& marked) {
  enum Move : uint8_t { diagonal, left, up };
  const size_t rows = ref.size(), cols = can.size();
  std::vector<uint8_t> moves(rows * cols);
  std::vector<int32_t> above(cols + 1, 0), row(cols + 1, 0);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < cols; ++j) {
      if (ref[i] == can[j]) {
        row[j + 1] = above[j] + 1;
        moves[i * cols + j] = diagonal;
      } else {
        row[j + 1] = std::max(above[j + 1], row[j]);
        moves[i * cols + j] = row[j] > above[j + 1] ? left : up;
      }
    }
    std::swap(row, above);
  }
  for (size_t i = rows, j = cols; i > 0 && j > 0;) switch (moves[(i - 1) * cols + j - 1]) {
      case diagonal:
        marked[i - 1] = true;
        --i, --j;
        break;
      case left:
        --j;
        break;
      default:
        --i;
    }
}

}  // namespace

double rouge_lsum(std::u32string_view target, std::u32string_view prediction) {
  Vocabulary vocabulary;
  const std::vector<Line> refs = vocabulary.lines(target), cans = vocabulary.lines(prediction);
  std::vector<int64_t> left_ref(vocabulary.size()), left_can(vocabulary.size());
  size_t m = 0, n = 0;
  for (const Line& line : refs)
    for (int32_t t : line) ++left_ref[size_t(t)], ++m;
  for (const Line& line : cans)
    for (int32_t t : line) ++left_can[size_t(t)], ++n;
  if (!m || !n) return 0;
  size_t hits = 0;
  for (const Line& ref : refs) {
    std::vector<bool> in_union(ref.size());
    for (const Line& can : cans) mark_lcs(ref, can, in_union);
    for (size_t i = 0; i < ref.size(); ++i) {
      if (!in_union[i]) continue;
      const size_t t = size_t(ref[i]);
      if (left_ref[t] > 0 && left_can[t] > 0) {
        ++hits;
        --left_ref[t];
        --left_can[t];
      }
    }
  }
  const double recall = double(hits) / double(m), precision = double(hits) / double(n);
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

double score_summary(const Value& pred, const Value& label) {
  const std::u32string& text = pred.str("prediction");
  if (label.kind == Value::text) return rouge_lsum(label.string, text);
  if (label.kind != Value::list)
    throw PythonError{prefill::str("the label must be a list, not ", label.type_name())};
  if (label.items.empty()) throw PythonError{"the label is an empty list"};
  double best = 0;
  for (const Value& reference : label.items) best = std::max(best, rouge_lsum(reference.str("label"), text));
  return best;
}

}  // namespace prefill::scoring
