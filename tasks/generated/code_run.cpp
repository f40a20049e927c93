// Code.Run of InfiniteBench: the value of a chain of function calls in a long module. Construction:
// specification 3.6; wording of the prompt is our own.
#include <algorithm>
#include <cstdlib>

#include "core/base/text.h"
#include "tasks/generated/generated_task.h"

namespace prefill {
namespace {

class CodeRun : public GeneratedTask {
 public:
  struct Params {
    int64_t functions = 0;
    int max_new_tokens = 0;
    template <class V>
    void fields(V& v) {
      v("functions", functions, at_least(0),
        "functions in the module instead of a token length; the published set has 4400; 0: by token length");
      v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: the official 5");
    }
    std::string invalid() const {
      return functions && functions < 20 ? "functions must be 0 or at least 20" : "";
    }
  };
  CodeRun(const Params& p, const TaskRequest& r)
      : GeneratedTask("code_run", "code_run", r, 5, p.max_new_tokens, p.functions) {}

 protected:
  int64_t min_units() const override { return 10; }

  Draft build(int64_t index, int64_t total, const std::string& padding) const override {
    Rng random = rng(index);
    const int64_t chain =
        2 * (index * 5 / count() + 1);  // 2, 4, 6, 8, 10: equal numbers of each, in this order
    const size_t group = size_t(total / chain);
    // distinct function numbers from 1 .. 2 total, in random order; those past chain * group join the last
    // group
    std::vector<int64_t> numbers(size_t(2 * total));
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = int64_t(i) + 1;
    for (size_t i = 0; i < size_t(total); ++i)
      std::swap(numbers[i], numbers[i + random.below(numbers.size() - i)]);
    struct Function {
      int64_t number, addend;
      size_t calls;  // index of the called one; none: itself
    };
    std::vector<Function> functions(static_cast<size_t>(total));
    for (size_t i = 0; i < functions.size(); ++i) {
      const size_t g = std::min(i / group, size_t(chain - 1));
      functions[i] = {numbers[i], 0, i};
      if (g + 1 < size_t(chain)) functions[i].calls = (g + 1) * group + random.below(group);
      functions[i].addend = random.between(-12, 17);
    }
    size_t at = random.below(group);
    const int64_t x = random.between(-10, 10);
    const std::string name = str("func_", functions[at].number), call = str(name, "(", x, ")");
    int64_t value = x;
    for (;; at = functions[at].calls) {
      value += functions[at].addend;
      if (functions[at].calls == at) break;
    }
    std::vector<size_t> order(functions.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return functions[a].number < functions[b].number; });
    std::string context = "The file functions_module.py reads as follows.\n\n" +
                          (padding.empty() ? "" : "# " + padding + "\n\n");
    for (size_t i : order) {
      const Function& f = functions[i];
      context += str("def func_", f.number, "(x):\n    return ");
      context += f.calls == i ? std::string("x") : str("func_", functions[f.calls].number, "(x)");
      if (f.addend) context += str(f.addend < 0 ? " - " : " + ", std::abs(f.addend));
      context += "\n\n";
    }
    Draft d;
    const std::string input = str("What is the exact return value of ", call, "?");
    d.prompt = str("The Python code below defines a function called ", name, ".\n\n", context,
                   "\n\nCompute the exact value of ", call, ". The value of ", call, " is");
    d.record = {{"context", context},
                {"input", input},
                {"answer", nlohmann::json::array({value})},
                {"chain", chain},
                {"functions", total}};
    return d;
  }
};

const RegisterTask<CodeRun> code_run_task{
    {.name = "code_run",
     .doc = "the value of a chain of 2 to 10 function calls in a long Python module",
     .source = "InfiniteBench Code.Run (OpenBMB/InfiniteBench 88b3daa, construct_synthetic_dataset.py)",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
