#include "core/report/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/base/text.h"

namespace prefill {
namespace {

std::string joined(const std::set<std::string>& parts) {
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : ", ") + p;
  return out.empty() ? "not recorded" : out;
}

void collect_problems(const RunData& run, std::vector<Problem>& out) {
  std::map<std::pair<std::string, std::string>, Problem> found;
  for (const auto& [id, s] : run.samples) {
    if (s.ok()) continue;
    Problem& p = found[{s.status, s.why}];
    if (p.samples++ == 0) {
      p = {.run_id = run.id,
           .label = run.label,
           .task = run.task,
           .status = s.status,
           .why = s.why,
           .tokens = run.tokens,
           .samples = 1,
           .example = id};
    }
  }
  for (auto& [key, p] : found) out.push_back(std::move(p));
}

/// Runs without summary.json, gathered by workload and progress so that an interrupted sweep takes a few
/// lines: a time budget leaves all methods of a workload alike.
void note_partial(const std::vector<RunData>& runs, std::vector<std::string>& notes) {
  std::map<std::string, int> of_workload;
  std::map<std::string, std::map<std::string, std::vector<std::string>>>
      partial;  // workload -> progress -> runs
  for (const RunData& run : runs) {
    const std::string workload = fmt::format("{}, {} tokens", run.task, run.tokens);
    ++of_workload[workload];
    if (run.complete) continue;
    const auto ok =
        std::count_if(run.samples.begin(), run.samples.end(), [](const auto& s) { return s.second.ok(); });
    partial[workload][fmt::format("{} of {} sample{} ok so far", ok, run.count, run.count == 1 ? "" : "s")]
        .push_back(fmt::format("{} ({})", run.label, run.id));
  }
  for (const auto& [workload, by_progress] : partial)
    for (const auto& [progress, names] : by_progress) {
      const bool all = int(names.size()) == of_workload[workload] && names.size() > 1;
      notes.push_back(fmt::format(
          "partial (`run` continues): {}, {}: {}", workload, progress,
          all ? fmt::format("all {} methods", names.size()) : fmt::format("{}", fmt::join(names, ", "))));
    }
}

void note_run(const RunData& run, std::vector<std::string>& notes) {
  if (run.torn_lines > 0)
    notes.push_back(fmt::format("run {}: {} torn line{} in its samples skipped", run.id, run.torn_lines,
                                run.torn_lines == 1 ? "" : "s"));
  const auto bad = [](const auto& s) { return !s.second.score_error.empty(); };
  const auto n = std::count_if(run.samples.begin(), run.samples.end(), bad);
  if (n > 0)
    notes.push_back(fmt::format(
        "{} ({}, {} tokens): {} sample{} counted with score 0 because the official scorer would raise: {}",
        run.label, run.task, run.tokens, n, n == 1 ? "" : "s",
        std::find_if(run.samples.begin(), run.samples.end(), bad)->second.score_error));
}

void note_panel(const Panel& panel, std::vector<std::string>& notes) {
  std::map<std::string, std::set<std::string>> by_kernels;  // kernels -> labels
  std::set<std::string> backends;
  for (const PanelPoint& p : panel.points) {
    if (!p.from_pairs) by_kernels[joined(p.kernels)].insert(p.label);
    backends.insert(p.backend);
  }
  if (by_kernels.size() > 1)
    for (const auto& [kernels, labels] : by_kernels)
      notes.push_back(fmt::format("{}: kernels {} in: {}", panel.title(), kernels, joined(labels)));
  int smallest = 1 << 30;
  for (const Slice& slice : panel.slices)
    if (!slice.task.empty() || panel.slices.size() == 1)
      for (const PointStats& s : slice.stats)
        if (s.n > 0) smallest = std::min(smallest, s.n);
  if (smallest < 5)
    notes.push_back(fmt::format("{}: as few as {} sample{} per task; intervals of so few are wide or missing",
                                panel.title(), smallest, smallest == 1 ? "" : "s"));
}

}  // namespace

Report make_report(const std::vector<std::string>& arguments, const std::string& results_root,
                   double score_margin) {
  Report report;
  report.runs = load_runs(arguments, results_root);
  report.panels = build_panels(report.runs, score_margin);
  report.break_evens = break_even(report.panels);
  report.positions = position_rows(report.runs);
  std::set<std::string> hardware;
  for (const RunData& run : report.runs) {
    collect_problems(run, report.problems);
    note_run(run, report.notes);
    hardware.insert(run.hardware);
  }
  note_partial(report.runs, report.notes);
  if (hardware.size() > 1)
    report.notes.push_back(fmt::format(
        "{} different machines: each has its own panels, their times are never mixed", hardware.size()));
  for (const Panel& panel : report.panels) note_panel(panel, report.notes);
  return report;
}

}  // namespace prefill
