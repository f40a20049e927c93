// compare A B: did anything change? The same samples, one by one, with verdicts.
#include <iostream>
#include <memory>

#include "core/app/verb.h"
#include "core/base/error.h"
#include "core/report/compare.h"

namespace prefill {
namespace {

struct CompareArguments {
  std::string a, b, results = "results";
  CompareOptions compare;
  bool json = false, fail_on_worse = false;
};

int run_compare(const CompareArguments& o) {
  const Comparison c = compare_runs(load_runs({o.a}, o.results), load_runs({o.b}, o.results), o.compare);
  // a prediction may end in half a UTF-8 character
  std::cout << (o.json ? to_json(c).dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"
                       : terminal_text(c))
            << std::flush;
  return o.fail_on_worse && c.worse() ? exit_some_failed : exit_ok;
}

const RegisterVerb compare_verb({
    .name = "compare",
    .doc = "Paired comparison of two result folders: SAME, BETTER, WORSE or UNCLEAR",
    .file = __FILE__,
    .order = 51,
    .setup = [](CLI::App& app) -> std::function<int()> {
      auto o = std::make_shared<CompareArguments>();
      app.add_option("A", o->a, "before: results folder, experiment, run folder or run id")->required();
      app.add_option("B", o->b, "after: the same")->required();
      app.add_option("--results", o->results, "where run ids are looked up")->capture_default_str();
      app.add_option("--score-margin", o->compare.score_margin,
                     "score differences within ±margin are the SAME")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str();
      app.add_option("--time-margin", o->compare.time_margin, "time ratios within 1 ± margin are the SAME")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str();
      app.add_flag("--across-hardware", o->compare.across_hardware,
                   "compare times of different machines all the same");
      app.add_flag("--fail-on-worse", o->fail_on_worse,
                   "exit with 1 when a score or time is WORSE or a sample is no longer ok");
      app.add_flag("--json", o->json, "print JSON");
      return [o] { return run_compare(*o); };
    },
});

}  // namespace
}  // namespace prefill
