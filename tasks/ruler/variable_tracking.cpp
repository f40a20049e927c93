// RULER's variable tracking: one chain of five variables with the same value, four assignments between them,
// hidden in noise (NVIDIA/RULER c3f5e3b, variable_tracking.py). A small worked example comes first, as there;
// the wording of the prompt is our own.
#include <set>

#include "core/base/text.h"
#include "tasks/generated/generated_task.h"
#include "tasks/generated/haystack.h"

namespace prefill {
namespace {

class VariableTracking : public GeneratedTask {
 public:
  struct Params {
    int hops = 4;
    int max_new_tokens = 0;
    template <class V>
    void fields(V& v) {
      v("hops", hops, in(1, 20), "assignments from one variable to the next");
      v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: RULER's 30");
    }
    std::string invalid() const { return ""; }
  };
  VariableTracking(const Params& p, const TaskRequest& r)
      : GeneratedTask("ruler/vt", "ruler/vt", r, 30, p.max_new_tokens, 0),
        hops_(p.hops),
        noise_("noise", {}) {}

 protected:
  int64_t min_units() const override { return hops_ + 1; }

  struct Chain {
    std::string text, value;
    std::vector<std::string> names;
  };
  // A chain inside `lines` noise lines, at distinct places in order.
  Chain chain(Rng& random, int64_t lines, int letters, const std::string& value) const {
    Chain c;
    c.value = value;
    std::set<std::string> taken;
    while (int(c.names.size()) < hops_ + 1) {
      std::string name;
      for (int i = 0; i < letters; ++i) name += char('A' + random.below(26));
      if (taken.insert(name).second) c.names.push_back(name);
    }
    std::set<int64_t> places;
    while (int64_t(places.size()) < hops_ + 1) places.insert(random.between(0, lines - 1));
    std::vector<std::pair<double, std::string>> statements;
    for (int64_t place : places) {
      const size_t i = statements.size();
      statements.emplace_back((double(place) + 0.5) / double(lines),
                              str("VAR ", c.names[i], " = ", i ? "VAR " + c.names[i - 1] : value));
    }
    c.text = noise_.text(lines, statements, 0, "\n");
    return c;
  }
  static std::string asked(const Chain& c) {
    return str("Question: Find all variables that have the value ", c.value,
               " in the text above.\nAnswer: ", c.names.size(), " variables have the value ", c.value,
               ", namely:");
  }

  Draft build(int64_t index, int64_t lines, const std::string& padding) const override {
    static const std::string task =
        "The text below hides assignments of variables. Follow the chain of assignments.\n\n";
    Rng random = rng(index);
    const Chain example = chain(random, hops_ + 6, 3, "12345");
    const Chain c = chain(random, lines, 5, std::to_string(random.between(10000, 99998)));
    Draft d;
    const std::string context = padded(padding, "\n") + c.text, input = asked(c);
    std::string names;
    for (const auto& n : example.names) names += " " + n;
    d.prompt = str(task, example.text, "\n\n", asked(example), names, "\n\n", task, context, "\n\n", input);
    d.record = {{"context", context}, {"input", input}, {"answer", c.names}};
    return d;
  }

 private:
  int hops_;
  Haystack noise_;
};

const RegisterTask<VariableTracking> variable_tracking_task{
    {.name = "ruler/vt",
     .doc = "variable tracking: all names that a value reaches through a chain of assignments",
     .source = "NVIDIA/RULER c3f5e3b, variable_tracking.py",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
