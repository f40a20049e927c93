// The terminal form of a report.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "core/base/text.h"
#include "core/report/report.h"
#include "core/report/text_table.h"

namespace prefill {
namespace {

/// Three significant digits, so that 0.00431 s and 43.1 s both read well.
std::string three(double x) {
  if (!std::isfinite(x)) return "-";
  const double a = std::abs(x);
  return fmt::format("{:.{}f}", x, a >= 100 ? 0 : a >= 10 ? 1 : a >= 1 ? 2 : a >= 0.1 ? 3 : 4);
}

/// "0.90 [.60,.98]": scores lie in [0, 1], so the leading zero of the bounds is spared.
std::string score_text(const Estimate& e) {
  if (!e.known()) return "-";
  const int digits = score_digits(e);
  if (!e.has_interval()) return fmt::format("{:.{}f}", e.value, digits);
  auto bound = [digits](double x) {
    return x >= 0.995 ? std::string("1.0") : fmt::format("{:.{}f}", std::max(0.0, x), digits).substr(1);
  };
  return fmt::format("{:.{}f} [{},{}]", e.value, digits, bound(e.lo), bound(e.hi));
}

std::string speedup_text(const PanelPoint& p, const Estimate& e) {
  if (p.baseline) return "1";
  if (!e.known()) return "-";
  const int digits = e.value >= 9.95 ? 1 : 2;
  if (!e.has_interval()) return fmt::format("{:.{}f}", e.value, digits);
  return fmt::format("{:.{}f}±{:.{}f}", e.value, digits, (e.hi - e.lo) / 2, digits);
}

std::string difference_text(const PanelPoint& p, const PointStats& s) {
  if (p.baseline || !s.score_vs_dense.known()) return "-";
  return fmt::format("{:+.{}f} {}", s.score_vs_dense.value, score_digits(s.score_vs_dense),
                     to_string(s.verdict));
}

std::string count_text(const PointStats& s) {
  return s.n == s.expected ? std::to_string(s.n) : fmt::format("{}/{}", s.n, s.expected);
}

/// Labels of a panel's points without the settings that most points of a name have: an ablation's labels
/// differ in one setting of many.
struct RowLabels {
  std::vector<std::string> rows;                          ///< parallel to Panel::points
  std::map<std::string, std::vector<std::string>> usual;  ///< name -> "key=value" left out
};

std::string key_of(const std::string& setting) { return setting.substr(0, setting.find('=')); }

RowLabels row_labels(const Panel& panel) {
  struct Parts {
    std::string name;
    std::vector<std::string> settings;
  };
  std::vector<Parts> labels;
  std::map<std::string, int> points;                        // of a name
  std::map<std::pair<std::string, std::string>, int> seen;  // (name, key or key=value) -> points
  for (const PanelPoint& p : panel.points) {
    Parts parts;
    std::istringstream words(p.label);
    for (std::string word; words >> word;) {
      if (word.find('=') != std::string::npos)
        parts.settings.push_back(word);
      else if (parts.settings.empty())
        parts.name += (parts.name.empty() ? "" : " ") + word;
      else
        parts.settings.back() += " " + word;  // a value of several words
    }
    ++points[parts.name];
    for (const std::string& setting : parts.settings) {
      ++seen[{parts.name, setting}];
      ++seen[{parts.name, key_of(setting)}];
    }
    labels.push_back(std::move(parts));
  }
  // left out: what more than half of the points say, of settings that all of them name
  auto usual = [&](const Parts& p, const std::string& setting) {
    const int all = points[p.name];
    return all > 1 && seen[{p.name, key_of(setting)}] == all && 2 * seen[{p.name, setting}] > all;
  };
  RowLabels out;
  for (const Parts& parts : labels) {
    std::string row = parts.name;
    for (const std::string& setting : parts.settings) {
      if (!usual(parts, setting)) {
        row += " " + setting;
        continue;
      }
      std::vector<std::string>& left_out = out.usual[parts.name];
      if (std::ranges::count(left_out, setting) == 0) left_out.push_back(setting);
    }
    out.rows.push_back(row);
  }
  return out;
}

std::string slice_table(const Panel& panel, const Slice& slice, const RowLabels& labels, int width) {
  TextTable table({{"TAD", 3, false},
                   {"method", 0, false},
                   {"n", 5, true},
                   {"score [95 %]", 17, false},
                   {"to dense", 13, false},
                   {"TTFT s", 6, true},
                   {"×faster", 9, true},
                   {"attn s", 6, true},
                   {"×faster", 9, true},
                   {"dens.", 5, true}},
                  width);
  for (size_t i = 0; i < panel.points.size(); ++i) {
    const PanelPoint& p = panel.points[i];
    const PointStats& s = slice.stats[i];
    std::string marks;
    for (FrontierClass c : s.frontier) marks += mark(c);
    table.add({marks, labels.rows[i], count_text(s), score_text(s.score), difference_text(p, s),
               three(s.ttft.value), speedup_text(p, s.speedup_ttft), three(s.attention.value),
               speedup_text(p, s.speedup_attention),
               s.density.known() ? fmt::format("{:.3f}", s.density.value) : "-"});
  }
  return table.text();
}

/// What the tables of a panel leave out of the labels.
std::string usual_text(const RowLabels& labels, int width) {
  std::string out;
  for (const auto& [name, settings] : labels.usual) {
    std::string line = "  " + name + ", where not said otherwise:";
    for (const std::string& setting : settings) line += " " + setting;
    out += wrap(line, width, 4);
  }
  return out;
}

/// Points that the frontier leaves out only by noise, with those on it that they can not be told from.
std::string noise_text(const Panel& panel, const Slice& slice, const RowLabels& labels, int width) {
  constexpr size_t axis = static_cast<size_t>(Axis::attention);
  std::string out;
  for (size_t i = 0; i < panel.points.size(); ++i) {
    if (slice.stats[i].frontier[axis] != FrontierClass::within_noise) continue;
    std::string names;
    for (int j : slice.stats[i].same_within_noise)
      if (slice.stats[static_cast<size_t>(j)].frontier[axis] == FrontierClass::on_frontier)
        names += (names.empty() ? "" : ", ") + labels.rows[static_cast<size_t>(j)];
    if (!names.empty())
      out += wrap(
          str("  within noise of each other (score and attention time): ", labels.rows[i], " and ", names),
          width, 4);
  }
  return out;
}

std::string length_text(const BreakEven& b) {
  switch (b.kind) {
    case BreakEven::crosses:
      return fmt::format("{:.0f} tokens", b.tokens);
    case BreakEven::always_faster:
      return fmt::format("faster from {} tokens on", b.shortest);
    case BreakEven::never_faster:
      return fmt::format("not up to {} tokens", b.longest);
    case BreakEven::one_length:
      break;
  }
  return "";
}

std::string break_even_text(const Report& report, int width) {
  std::map<std::string, std::pair<std::string, std::string>> rows;  // label -> attention, ttft
  std::set<std::string> groups;
  for (const BreakEven& b : report.break_evens) groups.insert(b.model + b.hardware + b.dtype);
  for (const BreakEven& b : report.break_evens) {
    if (b.kind == BreakEven::one_length) continue;
    auto& row =
        rows[b.label + (groups.size() > 1 ? str(" (", b.model, ", ", b.dtype, ", ", b.hardware, ")") : "")];
    (b.axis == Axis::attention ? row.first : row.second) = length_text(b);
  }
  if (rows.empty()) return "";
  TextTable table({{"method", 0, false}, {"attention", 27, false}, {"TTFT", 27, false}}, width);
  for (const auto& [label, row] : rows) table.add({label, row.first, row.second});
  return "Break-even with dense (interpolated between the measured lengths)\n" + table.text() + "\n";
}

}  // namespace

std::string terminal_text(const Report& report, int width) {
  std::string out;
  for (const Panel& panel : report.panels) {
    std::string tasks;
    for (const std::string& t : panel.tasks) tasks += (tasks.empty() ? "" : ", ") + t;
    const RowLabels labels = row_labels(panel);
    for (const Slice& slice : panel.slices) {
      std::string what = "task " + (slice.task.empty() ? tasks : slice.task);
      if (slice.task.empty() && panel.tasks.size() > 1) what = "mean over " + tasks;
      out += wrap(str(panel.title(), " · ", what, " · ", panel.hardware_name, ", ", panel.dtype), width, 2);
      out += slice_table(panel, slice, labels, width);
      if (&slice == &panel.slices[0]) out += usual_text(labels, width);
      out += noise_text(panel, slice, labels, width) + "\n";
    }
  }
  out += wrap(
      "TAD: score against TTFT, attention time, density:  * on the frontier  ~ within noise of it  . "
      "dominated  "
      "? not compared (unknown, or not all tasks measured)",
      width, 2);
  out += wrap(
      "Brackets: 95 % interval; ±: half of it. ×faster: speed-up, paired with dense on the same sample and "
      "rounds. To "
      "dense: paired score difference; SAME: no sample changed or the interval is inside the margin; "
      "UNCLEAR: more "
      "samples are needed to tell.",
      width, 2);
  out += "\n" + positions_text(report.positions, width) + break_even_text(report, width);
  if (!report.problems.empty()) {
    out += "Not counted\n";
    for (const Problem& p : report.problems)
      out += wrap(fmt::format("  {} sample{} {}: {}, {}, {} tokens, run {} (first: {}){}", p.samples,
                              p.samples == 1 ? "" : "s", p.status, p.label, p.task, p.tokens, p.run_id,
                              p.example, p.why.empty() ? "" : ": " + p.why),
                  width, 4);
    out += "\n";
  }
  for (const std::string& note : report.notes) out += wrap("note: " + note, width, 6);
  return out;
}

}  // namespace prefill
