// The three written forms of a report: terminal text, pareto.csv, pareto.json. Figures are drawn from the
// JSON.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/report/panel.h"
#include "core/report/positions.h"
#include "core/report/result_set.h"

namespace prefill {

/// Samples of one run that do not count, by status and reason.
struct Problem {
  std::string run_id, label, task, status, why;
  int64_t tokens = 0;
  int samples = 0;
  std::string example;  ///< id of the first such sample
};

struct Report {
  std::vector<RunData> runs;
  std::vector<Panel> panels;
  std::vector<BreakEven> break_evens;
  std::vector<PositionRow> positions;
  std::vector<Problem> problems;
  std::vector<std::string> notes;  ///< partial runs, torn lines, kernels that differ, small n
};

/// Throws what load_runs throws.
Report make_report(const std::vector<std::string>& arguments, const std::string& results_root,
                   double score_margin);

/// Tables of at most `width` columns, notes and legend included.
std::string terminal_text(const Report& report, int width = 120);

/// One row per (panel, slice, point); RFC 4180. Empty cells: unknown.
std::string pareto_csv(const Report& report);

/// {"schema":1,"kind":"prefillbench-pareto","panels":[…],"break_even":[…],"positions":[…],"problems":[…],"notes":[…],"runs":[…]}.
/// Unknown numbers are null.
nlohmann::json pareto_json(const Report& report);

}  // namespace prefill
