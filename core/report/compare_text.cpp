// The written forms of a comparison.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/report/compare.h"
#include "core/report/estimate_json.h"
#include "core/report/text_table.h"

namespace prefill {
namespace {

using nlohmann::json;

constexpr size_t kListed = 40;  // changes printed on a terminal; the JSON holds all

json to_json(const TimeComparison& t) {
  return {{"ratio", to_json(t.ratio)},
          {"verdict", to_string(t.verdict)},
          {"ratio_to_dense", to_json(t.ratio_to_dense)},
          {"verdict_to_dense", to_string(t.verdict_to_dense)}};
}

std::string kind_text(Change::Kind kind) {
  switch (kind) {
    case Change::lost:
      return "right -> wrong";
    case Change::won:
      return "wrong -> right";
    case Change::broken:
      return "no longer ok";
    case Change::mended:
      return "ok now";
    case Change::moved:
      break;
  }
  return "score moved";
}

std::string difference_text(const ComparedPoint& p) {
  if (!p.difference.known()) return "-";
  const int digits = score_digits(p.difference);
  if (!p.difference.has_interval()) return fmt::format("{:+.{}f}", p.difference.value, digits);
  const auto bound = [digits](double x) {  // without the leading zero
    std::string text = fmt::format("{:+.{}f}", x, digits);
    return text[1] == '0' ? text.erase(1, 1) : text;
  };
  return fmt::format("{:+.{}f} [{},{}]", p.difference.value, digits, bound(p.difference.lo),
                     bound(p.difference.hi));
}

std::string ratio_text(const ComparedPoint& p, const TimeComparison& t) {
  if (!p.times_compared) return "not compared";
  if (!t.ratio.known()) return "-";
  const std::string interval =
      t.ratio.has_interval() ? fmt::format("±{:.2f}", (t.ratio.hi - t.ratio.lo) / 2) : "";
  return fmt::format("{:.2f}{} {}", t.ratio.value, interval, to_string(t.verdict));
}

void print_changes(const Comparison& c, Change::Kind kind, int width, std::string& out) {
  std::vector<size_t> which;
  for (size_t i = 0; i < c.changes.size(); ++i)
    if (c.changes[i].kind == kind) which.push_back(i);
  if (which.empty()) return;
  out += fmt::format("{} ({})\n", kind_text(kind), which.size());
  for (size_t k = 0; k < which.size() && k < kListed; ++k) {
    const Change& x = c.changes[which[k]];
    auto quoted = [](const std::string& text) {
      return cut_to(json(text).dump(-1, ' ', false, json::error_handler_t::replace), 30);
    };
    out += wrap(
        fmt::format("  {}, {} tokens, {}: {} -> {}, {} -> {}", x.sample, x.tokens, c.changes_in[which[k]],
                    x.before, x.after, quoted(x.prediction_before), quoted(x.prediction_after)),
        width, 4);
  }
  if (which.size() > kListed)
    out += fmt::format("  and {} more (--json lists all)\n", which.size() - kListed);
}

/// Where the raw ratio and the one relative to dense disagree, the machine moved rather than the method.
void note_drift(const ComparedPoint& p, const char* what, const TimeComparison& t, int width,
                std::string& out) {
  if (!p.times_compared || !p.task.empty() || t.verdict == t.verdict_to_dense ||
      !t.ratio_to_dense.has_interval())
    return;
  out += wrap(fmt::format("note: {}, {} tokens: {} relative to dense of the same session is {:.2f} [{:.2f}, "
                          "{:.2f}] {}, so part of the "
                          "difference is the machine's",
                          p.label, p.tokens, what, t.ratio_to_dense.value, t.ratio_to_dense.lo,
                          t.ratio_to_dense.hi, to_string(t.verdict_to_dense)),
              width, 6);
}

}  // namespace

std::string terminal_text(const Comparison& c, int width) {
  std::string out = "A -> B on the samples that both have\n";
  TextTable table({{"method", 0, false},
                   {"tokens", 7, true},
                   {"n", 4, true},
                   {"A", 5, true},
                   {"B", 5, true},
                   {"score B - A [95 %]", 20, false},
                   {"", 7, false},
                   {"TTFT B/A", 17, false},
                   {"attention B/A", 17, false}},
                  width);
  for (const ComparedPoint& p : c.points)
    table.add({p.task.empty() ? p.label : "  " + p.task, std::to_string(p.tokens), std::to_string(p.pairs),
               p.score_a.known() ? fmt::format("{:.{}f}", p.score_a.value, score_digits(p.difference)) : "-",
               p.score_b.known() ? fmt::format("{:.{}f}", p.score_b.value, score_digits(p.difference)) : "-",
               difference_text(p), p.difference.known() ? to_string(p.verdict) : "", ratio_text(p, p.ttft),
               ratio_text(p, p.attention)});
  out += table.text();
  out += wrap(
             "SAME: the 95 % interval is inside the margin, or no sample changed its score. BETTER, WORSE: "
             "it excludes no "
             "difference. UNCLEAR: more samples are needed. Ratios below 1: B is faster; ±: half the 95 % "
             "interval.",
             width, 2) +
         "\n";
  for (Change::Kind kind : {Change::broken, Change::lost, Change::won, Change::moved, Change::mended})
    print_changes(c, kind, width, out);
  if (!c.changes.empty()) out += "\n";
  std::vector<std::string> refusals;
  for (const ComparedPoint& p : c.points) {
    note_drift(p, "TTFT", p.ttft, width, out);
    note_drift(p, "attention", p.attention, width, out);
    if (!p.times_compared && !p.times_refused.empty() &&
        std::find(refusals.begin(), refusals.end(), p.times_refused) == refusals.end())
      refusals.push_back(p.times_refused);
  }
  for (const std::string& why : refusals)
    out += wrap("note: times are not compared: " + why + "; --across-hardware compares them all the same",
                width, 6);
  for (const std::string& note : c.notes) out += wrap("note: " + note, width, 6);
  return out;
}

json to_json(const Comparison& c) {
  json points = json::array(), changes = json::array();
  for (const ComparedPoint& p : c.points) {
    json j = {{"label", p.label},
              {"model", p.model},
              {"tokens", p.tokens},
              {"task", p.task.empty() ? json(nullptr) : json(p.task)},
              {"pairs", p.pairs},
              {"score_a", to_json(p.score_a)},
              {"score_b", to_json(p.score_b)},
              {"difference", to_json(p.difference)},
              {"changed_samples", p.changed},
              {"p", p.p},
              {"verdict", to_string(p.verdict)},
              {"density_a", to_json(p.density_a)},
              {"density_b", to_json(p.density_b)},
              {"times_compared", p.times_compared}};
    if (p.times_compared) {
      j["ttft"] = to_json(p.ttft);
      j["attention"] = to_json(p.attention);
    }
    if (!p.times_refused.empty()) j["hardware_differs"] = p.times_refused;
    points.push_back(std::move(j));
  }
  for (size_t i = 0; i < c.changes.size(); ++i) {
    const Change& x = c.changes[i];
    changes.push_back({{"sample", x.sample},
                       {"task", x.task},
                       {"tokens", x.tokens},
                       {"label", c.changes_in[i]},
                       {"kind", kind_text(x.kind)},
                       {"before", x.before},
                       {"after", x.after},
                       {"prediction_before", x.prediction_before},
                       {"prediction_after", x.prediction_after}});
  }
  return {{"schema", 1},      {"kind", "prefillbench-compare"},
          {"points", points}, {"changes", changes},
          {"notes", c.notes}, {"worse", c.worse()}};
}

}  // namespace prefill
