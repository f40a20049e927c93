#include "core/report/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

using nlohmann::json;

/// Runs of one method setting on one side.
using Points = std::map<std::string, std::vector<const RunData*>>;

Points group(const std::vector<RunData>& runs) {
  Points out;
  for (const RunData& r : runs) out[r.point_key()].push_back(&r);
  return out;
}

/// (A's setting, B's setting) by the strictest rule that tells them apart; each setting is used once.
std::vector<std::pair<std::string, std::string>> match(const Points& a, const Points& b) {
  using Key = std::function<std::string(const RunData&)>;
  const std::vector<Key> rules = {
      [](const RunData& r) { return r.point_key(); },
      [](const RunData& r) { return r.method + r.params.dump() + r.dtype; },
      [](const RunData& r) { return r.method + r.params.dump() + r.backend; },
      [](const RunData& r) { return r.method + r.params.dump(); },
  };
  std::vector<std::pair<std::string, std::string>> out;
  std::set<std::string> used_a, used_b;
  for (const Key& rule : rules) {
    std::map<std::string, std::vector<std::string>> left_a, left_b;
    for (const auto& [key, runs] : a)
      if (!used_a.count(key)) left_a[rule(*runs[0])].push_back(key);
    for (const auto& [key, runs] : b)
      if (!used_b.count(key)) left_b[rule(*runs[0])].push_back(key);
    for (const auto& [shared, keys] : left_a) {
      const auto other = left_b.find(shared);
      if (other == left_b.end() || keys.size() != 1 || other->second.size() != 1) continue;
      out.emplace_back(keys[0], other->second[0]);
      used_a.insert(keys[0]);
      used_b.insert(other->second[0]);
    }
  }
  if (out.empty() && a.size() == 1 && b.size() == 1) out.emplace_back(a.begin()->first, b.begin()->first);
  return out;
}

struct Pair {
  const RunData *run_a, *run_b;
  const SampleResult *a, *b;
};

/// Samples of both sides with equal prompts.
std::vector<Pair> pair_samples(const std::vector<const RunData*>& a, const std::vector<const RunData*>& b) {
  std::map<std::string, std::pair<const RunData*, const SampleResult*>> by_key;
  for (const RunData* r : b)
    for (const auto& [id, s] : r->samples) {
      auto& slot = by_key[r->workload_key() + id];
      if (!slot.second || s.ok()) slot = {r, &s};
    }
  std::vector<Pair> out;
  std::set<std::string> seen;
  for (const RunData* r : a)
    for (const auto& [id, s] : r->samples) {
      const std::string key = r->workload_key() + id;
      const auto it = by_key.find(key);
      if (it != by_key.end() && seen.insert(key).second)
        out.push_back({r, it->second.first, &s, it->second.second});
    }
  return out;
}

TimeComparison compare_times(const std::vector<Pair>& pairs, std::vector<double> Timing::*which,
                             double margin) {
  std::map<std::string, std::vector<double>> raw, adjusted;
  for (const Pair& p : pairs) {
    const auto &a = p.a->time.*which, &b = p.b->time.*which;
    if (a.empty() || b.empty()) continue;
    const double ratio = median(b) / median(a);
    if (!std::isfinite(ratio)) continue;
    raw[p.run_a->task].push_back(ratio);
    const auto &dense_a = p.a->dense_time.*which, &dense_b = p.b->dense_time.*which;
    if (!dense_a.empty() && !dense_b.empty())
      adjusted[p.run_a->task].push_back(ratio * median(dense_a) / median(dense_b));
  }
  auto estimate = [](const std::map<std::string, std::vector<double>>& groups) {
    Strata strata;
    for (const auto& [task, values] : groups) strata.push_back(values);
    return bootstrap(strata, Center::median);
  };
  TimeComparison out;
  out.ratio = estimate(raw);
  out.ratio_to_dense = estimate(adjusted);
  out.verdict = time_verdict(out.ratio, margin);
  out.verdict_to_dense = time_verdict(out.ratio_to_dense, margin);
  return out;
}

Estimate mean_density(const std::vector<Pair>& pairs, const SampleResult* Pair::*side) {
  std::map<std::string, std::vector<double>> groups;
  for (const Pair& p : pairs)
    if ((p.*side)->density >= 0) groups[p.run_a->task].push_back((p.*side)->density);
  Strata strata;
  for (const auto& [task, values] : groups) strata.push_back(values);
  return bootstrap(strata, Center::mean);
}

std::string why_times_differ(const Pair& p) {
  if (p.run_a->hardware != p.run_b->hardware)
    return str("different machines (", hardware_text(*p.run_a), " [", p.run_a->hardware, "] and ",
               hardware_text(*p.run_b), " [", p.run_b->hardware, "])");
  if (p.run_a->threads != p.run_b->threads)
    return str(p.run_a->threads, " threads in A, ", p.run_b->threads, " in B");
  return "";
}

ComparedPoint compare_point(const std::string& label, const std::vector<Pair>& all, const std::string& task,
                            const CompareOptions& options) {
  std::vector<Pair> pairs;  // ok on both sides
  for (const Pair& p : all)
    if (p.a->ok() && p.b->ok() && (task.empty() || p.run_a->task == task)) pairs.push_back(p);
  ComparedPoint out;
  out.label = label;
  out.model = all[0].run_a->model;
  out.task = task;
  out.tokens = all[0].run_a->tokens;
  out.pairs = static_cast<int>(pairs.size());
  std::map<std::string, std::vector<std::pair<double, double>>> scores;
  std::vector<double> differences;
  for (const Pair& p : pairs) {
    if (!p.a->has_score || !p.b->has_score) continue;
    scores[p.run_a->task].push_back({p.a->score, p.b->score});
    differences.push_back(p.b->score - p.a->score);
    out.changed += p.a->score != p.b->score;
  }
  const bool read =
      std::all_of(pairs.begin(), pairs.end(), [](const Pair& p) { return p.a->of_positions(); });
  const ScoreKind kind = read ? ScoreKind::positions : ScoreKind::answers;
  PairedStrata strata;
  Strata before, after;
  for (const auto& [name, group] : scores) {
    strata.push_back(group);
    before.emplace_back();
    after.emplace_back();
    for (auto [x, y] : group) {
      before.back().push_back(x);
      after.back().push_back(y);
    }
  }
  out.score_a = score_estimate(before, kind);
  out.score_b = score_estimate(after, kind);
  out.difference = paired_difference(strata, kind);
  out.p = sign_flip_p(differences);
  const bool relative =
      std::all_of(pairs.begin(), pairs.end(), [](const Pair& p) { return p.a->metric == kPerplexityMetric; });
  out.verdict = score_verdict(
      out.difference, out.changed,
      relative && out.score_a.known() ? options.score_margin * out.score_a.value : options.score_margin);
  for (const Pair& p : pairs)
    if (out.times_refused.empty()) out.times_refused = why_times_differ(p);
  out.times_compared = !pairs.empty() && (out.times_refused.empty() || options.across_hardware);
  if (out.times_compared) {
    out.ttft = compare_times(pairs, &Timing::ttft_s, options.time_margin);
    out.attention = compare_times(pairs, &Timing::attention_s, options.time_margin);
  }
  out.density_a = mean_density(pairs, &Pair::a);
  out.density_b = mean_density(pairs, &Pair::b);
  return out;
}

void collect_changes(const std::string& label, const std::vector<Pair>& pairs, Comparison& out) {
  for (const Pair& p : pairs) {
    const bool ok_a = p.a->ok(), ok_b = p.b->ok();
    if (!ok_a && !ok_b) continue;
    const bool scored = p.a->has_score && p.b->has_score;
    if (ok_a && ok_b && (!scored || p.a->score == p.b->score)) continue;
    Change c;
    c.sample = p.a->id;
    c.task = p.run_a->task;
    c.tokens = p.run_a->tokens;
    c.before = !ok_a ? p.a->status : p.a->has_score ? number_text(p.a->score) : "ok";
    c.after = !ok_b ? p.b->status : p.b->has_score ? number_text(p.b->score) : "ok";
    c.prediction_before = p.a->prediction;
    c.prediction_after = p.b->prediction;
    if (!ok_b)
      c.kind = Change::broken;
    else if (!ok_a)
      c.kind = Change::mended;
    else if (p.a->score == 1 && p.b->score == 0)
      c.kind = Change::lost;
    else if (p.a->score == 0 && p.b->score == 1)
      c.kind = Change::won;
    out.changes.push_back(std::move(c));
    out.changes_in.push_back(label);
  }
}

std::string names_of(const Points& points, const std::set<std::string>& used) {
  std::string out;
  for (const auto& [key, runs] : points)
    if (!used.count(key)) out += (out.empty() ? "" : ", ") + runs[0]->label;
  return out;
}

std::string setting(const RunData& r) {
  return str(r.label, " ", r.backend, " ", r.dtype, " v", r.method_version);
}

}  // namespace

bool Comparison::worse() const {
  for (const ComparedPoint& p : points) {
    if (!p.task.empty()) continue;
    if (p.verdict == Verdict::worse) return true;
    if (p.times_compared && (p.ttft.verdict == Verdict::worse || p.attention.verdict == Verdict::worse))
      return true;
  }
  return std::any_of(changes.begin(), changes.end(),
                     [](const Change& c) { return c.kind == Change::broken; });
}

Comparison compare_runs(const std::vector<RunData>& a, const std::vector<RunData>& b,
                        const CompareOptions& options) {
  Comparison out;
  const Points points_a = group(a), points_b = group(b);
  std::set<std::string> used_a, used_b;
  int paired = 0;
  for (const auto& [key_a, key_b] : match(points_a, points_b)) {
    used_a.insert(key_a);
    used_b.insert(key_b);
    const RunData &first_a = *points_a.at(key_a)[0], &first_b = *points_b.at(key_b)[0];
    std::string label = first_a.label;
    if (key_a != key_b)
      label = first_a.label != first_b.label ? first_a.label + " -> " + first_b.label
                                             : setting(first_a) + " -> " + setting(first_b);
    std::map<std::pair<std::string, int64_t>, std::vector<Pair>> by_length;
    for (const Pair& p : pair_samples(points_a.at(key_a), points_b.at(key_b)))
      by_length[{p.run_a->model, p.run_a->tokens}].push_back(p);
    if (by_length.empty())
      out.notes.push_back(label + ": no sample in common (other task, length, seed or scoring profile)");
    for (const auto& [where, pairs] : by_length) {
      paired += static_cast<int>(pairs.size());
      std::set<std::string> tasks;
      for (const Pair& p : pairs) tasks.insert(p.run_a->task);
      out.points.push_back(compare_point(label, pairs, "", options));
      if (tasks.size() > 1)
        for (const std::string& task : tasks)
          out.points.push_back(compare_point(label, pairs, task, options));
      collect_changes(label, pairs, out);
      if (pairs[0].run_a->model_sha != pairs[0].run_b->model_sha)
        out.notes.push_back(str(label, ": the weights of ", pairs[0].run_a->model,
                                " are not the same in A and B (other sha256)"));
    }
  }
  if (const std::string names = names_of(points_a, used_a); !names.empty())
    out.notes.push_back("only in A: " + names);
  if (const std::string names = names_of(points_b, used_b); !names.empty())
    out.notes.push_back("only in B: " + names);
  if (paired == 0) {
    std::string why;
    for (const std::string& note : out.notes) why += "; " + note;
    throw InputError("compare: no sample occurs in both A and B" + why);
  }
  return out;
}

}  // namespace prefill
