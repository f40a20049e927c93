// pareto.csv and pareto.json.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "core/base/text.h"
#include "core/report/csv.h"
#include "core/report/estimate_json.h"
#include "core/report/report.h"

namespace prefill {
namespace {

using nlohmann::json;

json non_negative(double x) { return x >= 0 ? json(x) : json(nullptr); }

json to_json(const PanelPoint& p) {
  return {{"method", p.method},
          {"version", p.version},
          {"label", p.label},
          {"short_label", p.short_label},
          {"params", p.params},
          {"backend", p.backend},
          {"baseline", p.baseline},
          {"from_pairs", p.from_pairs},
          {"series", p.series},
          {"knob", p.knob},
          {"knob_value", finite_or_null(p.knob_value)},
          {"stages_s", p.stages_s},
          {"decode_s", non_negative(p.decode_s)},
          {"device_peak_bytes", non_negative(p.device_peak_bytes)},
          {"kernels", p.kernels},
          {"run_ids", p.run_ids}};
}

json to_json(const PointStats& s) {
  json frontier = json::object();
  for (Axis axis : all_axes) frontier[to_string(axis)] = to_string(s.frontier[static_cast<size_t>(axis)]);
  return {{"n", s.n},
          {"expected", s.expected},
          {"tasks_covered", s.tasks_covered},
          {"score", to_json(s.score)},
          {"score_vs_dense", to_json(s.score_vs_dense)},
          {"changed_samples", s.changed},
          {"p_vs_dense", s.p_vs_dense},
          {"verdict", to_string(s.verdict)},
          {"ttft_s", to_json(s.ttft)},
          {"attention_s", to_json(s.attention)},
          {"density", to_json(s.density)},
          {"speedup_ttft", to_json(s.speedup_ttft)},
          {"speedup_attention", to_json(s.speedup_attention)},
          {"frontier", frontier},
          {"same_within_noise", s.same_within_noise}};
}

}  // namespace

std::string pareto_csv(const Report& report) {
  std::vector<std::string> head = {"model",   "tokens", "task",    "method",   "label", "params",
                                   "backend", "dtype",  "threads", "hardware", "n",     "expected"};
  for (const char* name :
       {"score", "score_vs_dense", "ttft_s", "attention_s", "density", "speedup_ttft", "speedup_attention"})
    for (const char* part : {"", "_lo", "_hi"}) head.push_back(str(name, part));
  for (const char* name :
       {"verdict_vs_dense", "frontier_ttft", "frontier_attention", "frontier_density", "kernels", "run_ids"})
    head.push_back(name);
  std::string out = csv_row(head);
  for (const Panel& panel : report.panels)
    for (const Slice& slice : panel.slices)
      for (size_t i = 0; i < panel.points.size(); ++i) {
        const PanelPoint& p = panel.points[i];
        const PointStats& s = slice.stats[i];
        if (s.n == 0) continue;
        const std::string task = !slice.task.empty()       ? slice.task
                                 : panel.tasks.size() == 1 ? panel.tasks[0]
                                                           : "all";
        std::vector<std::string> row = {panel.model,    str(panel.tokens), task,
                                        p.method,       p.label,           p.params.dump(),
                                        p.backend,      panel.dtype,       str(panel.threads),
                                        panel.hardware, str(s.n),          str(s.expected)};
        for (const Estimate* e : {&s.score, &s.score_vs_dense, &s.ttft, &s.attention, &s.density,
                                  &s.speedup_ttft, &s.speedup_attention})
          for (double x : {e->value, e->lo, e->hi}) row.push_back(std::isfinite(x) ? number_text(x) : "");
        row.push_back(p.baseline ? "" : to_string(s.verdict));
        for (Axis axis : all_axes) row.push_back(to_string(s.frontier[static_cast<size_t>(axis)]));
        row.push_back(fmt::format("{}", fmt::join(p.kernels, " ")));
        row.push_back(fmt::format("{}", fmt::join(p.run_ids, " ")));
        out += csv_row(row);
      }
  return out;
}

json pareto_json(const Report& report) {
  json panels = json::array();
  for (const Panel& panel : report.panels) {
    json points = json::array(), slices = json::array();
    for (const PanelPoint& p : panel.points) points.push_back(to_json(p));
    for (const Slice& slice : panel.slices) {
      json stats = json::array();
      for (const PointStats& s : slice.stats) stats.push_back(to_json(s));
      slices.push_back({{"task", slice.task}, {"stats", stats}});
    }
    panels.push_back({{"model", panel.model},
                      {"model_sha256", panel.model_sha},
                      {"tokens", panel.tokens},
                      {"dtype", panel.dtype},
                      {"threads", panel.threads},
                      {"hardware", panel.hardware},
                      {"hardware_name", panel.hardware_name},
                      {"tasks", panel.tasks},
                      {"points", points},
                      {"slices", slices}});
  }
  json crossings = json::array();
  static const char* kinds[] = {"crosses", "always faster", "never faster", "one length only"};
  for (const BreakEven& b : report.break_evens)
    crossings.push_back({{"model", b.model},
                         {"hardware", b.hardware},
                         {"dtype", b.dtype},
                         {"label", b.label},
                         {"method", b.method},
                         {"axis", to_string(b.axis)},
                         {"kind", kinds[b.kind]},
                         {"tokens", b.kind == BreakEven::crosses ? json(b.tokens) : json(nullptr)},
                         {"shortest", b.shortest},
                         {"longest", b.longest}});
  json problems = json::array();
  for (const Problem& p : report.problems)
    problems.push_back({{"run", p.run_id},
                        {"label", p.label},
                        {"task", p.task},
                        {"tokens", p.tokens},
                        {"status", p.status},
                        {"why", p.why},
                        {"samples", p.samples},
                        {"example", p.example}});
  json runs = json::array();
  for (const RunData& r : report.runs)
    runs.push_back({{"id", r.id},
                    {"experiment", r.experiment},
                    {"complete", r.complete},
                    {"spec", r.spec},
                    {"provenance", r.provenance},
                    {"samples", r.samples.size()}});
  return {{"schema", 1},
          {"kind", "prefillbench-pareto"},
          {"panels", panels},
          {"break_even", crossings},
          {"positions", positions_json(report.positions)},
          {"problems", problems},
          {"notes", report.notes},
          {"runs", runs}};
}

}  // namespace prefill
