// Math.Calc of InfiniteBench: the running values of a long sum. Construction: specification 3.5; wording of
// the prompt is our own. Unlike the official prompt, whose examples list the first operand, ours show what
// the labels hold.
#include <algorithm>

#include "core/base/text.h"
#include "tasks/generated/generated_task.h"

namespace prefill {
namespace {

class MathCalc : public GeneratedTask {
 public:
  struct Params {
    int64_t numbers = 0;
    int max_new_tokens = 0;
    template <class V>
    void fields(V& v) {
      v("numbers", numbers, at_least(0),
        "operands instead of a token length; the published set has 15000; 0: by token length");
      v("max_new_tokens", max_new_tokens, at_least(0),
        "limit of the answer; 0: the official 30000, or one token per prompt token where that is less");
    }
    std::string invalid() const { return numbers == 1 ? "numbers must be 0 or at least 2" : ""; }
  };
  MathCalc(const Params& p, const TaskRequest& r)
      : GeneratedTask("math_calc", "math_calc", r,
                      p.numbers ? 30000 : int(std::min<int64_t>(30000, r.tokens)), p.max_new_tokens,
                      p.numbers) {}

 protected:
  int64_t min_units() const override { return 2; }

  Draft build(int64_t index, int64_t length, const std::string& padding) const override {
    Rng random = rng(index);
    int64_t value = random.between(0, 99);
    std::string expression = std::to_string(value);
    nlohmann::json answer = nlohmann::json::array();
    for (int64_t i = 1; i < length; ++i) {
      const bool plus = random.below(2);
      int64_t operand = random.between(0, 99);
      if (plus && value + operand > 99) operand = random.between(0, 99 - value);
      if (!plus && value < operand) operand = random.between(0, value);
      value += plus ? operand : -operand;
      expression += str(plus ? " + " : " - ", operand);
      answer.push_back(value);
    }
    Draft d;
    const std::string context = padded(padding, "\n") + expression;
    d.prompt =
        str("Give the running value of an expression after each operation.\n\n"
            "Expression: 2 + 5 + 1\nValues: [7, 8]\n\nExpression: 9 - 4 + 3 - 6\nValues: [5, 8, "
            "2]\n\nExpression: ",
            context, "\nValues:");
    d.record = {{"context", context},
                {"input", "Running values after each operation:"},
                {"answer", answer},
                {"numbers", length}};
    return d;
  }
};

const RegisterTask<MathCalc> math_calc_task{
    {.name = "math_calc",
     .doc = "running values of a long sum of small integers; share of the list that is right before the "
            "first mistake",
     .source = "InfiniteBench Math.Calc (OpenBMB/InfiniteBench 88b3daa, construct_synthetic_dataset.py)",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
