// Math.Find of InfiniteBench: one order statistic of a long list of small integers. Construction:
// specification 3.4; wording of the prompt is our own.
#include <algorithm>
#include <set>

#include "core/base/text.h"
#include "tasks/generated/generated_task.h"

namespace prefill {
namespace {

struct Kind {
  const char* wanted;
  enum Bound { largest, smallest, median } bound;
  int rank;  // 1: the largest or smallest distinct value
};
const Kind kinds[] = {{"largest number", Kind::largest, 1},
                      {"second largest number", Kind::largest, 2},
                      {"third largest number", Kind::largest, 3},
                      {"smallest number", Kind::smallest, 1},
                      {"second smallest number", Kind::smallest, 2},
                      {"third smallest number", Kind::smallest, 3},
                      {"median number", Kind::median, 0}};

// The median of an even number of values is the mean of the middle two and always a float, as in the
// published data.
nlohmann::json answer_of(const Kind& kind, std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  if (kind.bound == Kind::median) {
    const size_t half = values.size() / 2;
    if (values.size() % 2) return values[half];
    return double(values[half] + values[half - 1]) / 2;
  }
  values.erase(std::unique(values.begin(), values.end()), values.end());
  const size_t r = size_t(kind.rank - 1);
  return kind.bound == Kind::largest ? values[values.size() - 1 - r] : values[r];
}

class MathFind : public GeneratedTask {
 public:
  struct Params {
    int64_t numbers = 0;
    int max_new_tokens = 0;
    template <class V>
    void fields(V& v) {
      v("numbers", numbers, at_least(0),
        "length of the list instead of a token length; the published set has 30000; 0: by token length");
      v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: the official 3");
    }
    std::string invalid() const { return numbers && numbers < 3 ? "numbers must be 0 or at least 3" : ""; }
  };
  MathFind(const Params& p, const TaskRequest& r)
      : GeneratedTask("math_find", "math_find", r, 3, p.max_new_tokens, p.numbers) {}

 protected:
  int64_t min_units() const override { return 3; }

  Draft build(int64_t index, int64_t length, const std::string& padding) const override {
    Rng random = rng(index);
    const Kind& kind = kinds[size_t(index * 7 / count())];  // equal numbers of each, in this order
    int64_t low = 0, high = 99;
    const bool from_above = kind.bound == Kind::largest || (kind.bound == Kind::median && random.below(2));
    if (from_above)
      high = random.between(79, 99);
    else
      low = random.between(0, 19);
    std::vector<int64_t> values;
    std::set<int64_t> distinct;
    while (int64_t(values.size()) < length) {
      const int64_t v = random.between(low, high);
      // the first three differ, so that even the shortest list has a third largest
      if (distinct.size() < 3 && !distinct.insert(v).second) continue;
      values.push_back(v);
    }
    std::string context = padded(padding, "\n") + "[";
    for (size_t i = 0; i < values.size(); ++i) context += str(i ? ", " : "", values[i]);
    context += ']';
    Draft d;
    const std::string input =
        str("Answer with one number and no other words. The ", kind.wanted, " of the list is: ");
    d.prompt = str("What is the ", kind.wanted, " in the following list?\n\n", context, "\n\n", input);
    d.record = {{"context", context},
                {"input", input},
                {"answer", nlohmann::json::array({answer_of(kind, values)})},
                {"numbers", length}};
    return d;
  }
};

const RegisterTask<MathFind> math_find_task{
    {.name = "math_find",
     .doc = "largest, smallest (first to third) or median of a long list of integers",
     .source = "InfiniteBench Math.Find (OpenBMB/InfiniteBench 88b3daa, construct_synthetic_dataset.py)",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
