#include "core/report/panel.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <tuple>

#include "core/base/text.h"

namespace prefill {
namespace {

using nlohmann::json;

/// A sample of a point with the run it comes from.
struct Measured {
  const SampleResult* sample;
  std::string task;  // stratum
  std::string key;   // workload and sample: equal keys are the same prompt
};

/// What is known of dense attention on one prompt.
struct DenseOnSample {
  std::vector<double> ttft, attention;  // one value per measurement: median over its repeats
  std::optional<double> score;
};

using DenseTable = std::map<std::string, DenseOnSample>;

/// dense / method of one sample: median over rounds when both ran in the same rounds, else ratio of medians.
/// NaN when one of them is missing.
double speedup(const std::vector<double>& dense, const std::vector<double>& method) {
  if (dense.empty() || method.empty()) return std::numeric_limits<double>::quiet_NaN();
  if (dense.size() != method.size()) return median(dense) / median(method);
  std::vector<double> ratios;
  for (size_t i = 0; i < dense.size(); ++i) ratios.push_back(dense[i] / method[i]);
  return median(ratios);
}

/// Per-sample values in one group per task; a sample without the value is left out.
class Grouped {
 public:
  void add(const std::string& task, double value) {
    if (std::isfinite(value)) groups_[task].push_back(value);
  }
  Strata strata() const {
    Strata out;
    for (const auto& [task, values] : groups_) out.push_back(values);
    return out;
  }

 private:
  std::map<std::string, std::vector<double>> groups_;
};

/// Time of a point. A single sample with repeats (tensor workloads) rests on its repeats.
Estimate time_estimate(const std::vector<Measured>& measured, std::vector<double> Timing::*which) {
  if (measured.size() == 1) {
    const std::vector<double>& repeats = measured[0].sample->time.*which;
    return repeats.empty() ? Estimate{} : bootstrap({repeats}, Center::median);
  }
  Grouped g;
  for (const Measured& m : measured)
    if (!(m.sample->time.*which).empty()) g.add(m.task, median(m.sample->time.*which));
  return bootstrap(g.strata(), Center::median);
}

PointStats measure(const std::vector<Measured>& all, const std::string& task, const DenseTable& dense,
                   bool baseline, double score_margin) {
  std::vector<Measured> measured;
  std::set<std::string> tasks;
  for (const Measured& m : all)
    if (m.sample->ok() && (task.empty() || m.task == task)) {
      measured.push_back(m);
      tasks.insert(m.task);
    }
  PointStats s;
  s.n = static_cast<int>(measured.size());
  s.tasks_covered = static_cast<int>(tasks.size());
  s.ttft = time_estimate(measured, &Timing::ttft_s);
  s.attention = time_estimate(measured, &Timing::attention_s);
  Grouped scores, densities, up_ttft, up_attention;
  std::map<std::string, std::vector<std::pair<double, double>>> pairs;
  std::vector<double> differences, dense_scores;
  for (const Measured& m : measured) {
    const SampleResult& r = *m.sample;
    if (r.has_score) scores.add(m.task, r.score);
    if (r.density >= 0) densities.add(m.task, r.density);
    if (baseline) continue;
    const auto other = dense.find(m.key);
    std::optional<double> dense_score;
    if (r.has_dense_score)
      dense_score = r.dense_score;
    else if (other != dense.end())
      dense_score = other->second.score;
    if (r.has_score && dense_score) {
      pairs[m.task].push_back({*dense_score, r.score});
      dense_scores.push_back(*dense_score);
      differences.push_back(r.score - *dense_score);
      s.changed += r.score != *dense_score;
    }
    if (r.has_dense) {
      up_ttft.add(m.task, speedup(r.dense_time.ttft_s, r.time.ttft_s));
      up_attention.add(m.task, speedup(r.dense_time.attention_s, r.time.attention_s));
    }
  }
  const bool read = std::all_of(measured.begin(), measured.end(),
                                [](const Measured& m) { return m.sample->of_positions(); });
  const ScoreKind kind = read ? ScoreKind::positions : ScoreKind::answers;
  s.score = score_estimate(scores.strata(), kind);
  s.density = bootstrap(densities.strata(), Center::mean);
  if (baseline) return s;
  s.speedup_ttft = bootstrap(up_ttft.strata(), Center::median);
  s.speedup_attention = bootstrap(up_attention.strata(), Center::median);
  PairedStrata strata;
  for (auto& [name, group] : pairs) strata.push_back(std::move(group));
  s.score_vs_dense = paired_difference(strata, kind);
  s.p_vs_dense = sign_flip_p(differences);
  const bool relative = std::all_of(measured.begin(), measured.end(),
                                    [](const Measured& m) { return m.sample->metric == kPerplexityMetric; });
  s.verdict =
      score_verdict(s.score_vs_dense, s.changed, relative ? score_margin * mean(dense_scores) : score_margin);
  return s;
}

std::string value_text(const json& v) {
  if (v.is_string()) return v.get<std::string>();
  if (v.is_number_float()) return number_text(v.get<double>());
  return v.dump();
}

/// The parameters in which the members differ, and whether they are numbers that grow together (as zipped
/// settings do), so that one line joins all members.
struct Varying {
  std::vector<std::string> names, numeric;
  bool together = true;
};

Varying varying_params(const std::vector<PanelPoint*>& members) {
  std::map<std::string, std::set<std::string>> values;
  for (PanelPoint* p : members)
    for (const auto& [name, value] : p->params.items()) values[name].insert(value.dump());
  Varying out;
  for (const auto& [name, distinct] : values) {
    if (distinct.size() < 2) continue;
    out.names.push_back(name);
    const bool numeric = std::all_of(members.begin(), members.end(), [&, key = name](PanelPoint* p) {
      return p->params.contains(key) && p->params[key].is_number();
    });
    if (numeric)
      out.numeric.push_back(name);
    else
      out.together = false;
  }
  for (const std::string& x : out.numeric)
    for (PanelPoint* p : members)
      for (PanelPoint* q : members) {
        const std::string& first = out.numeric[0];
        const double dx = p->params[x].get<double>() - q->params[x].get<double>();
        const double d0 = p->params[first].get<double>() - q->params[first].get<double>();
        out.together = out.together && dx * d0 >= 0 && (dx == 0) == (d0 == 0);
      }
  return out;
}

/// What a short label shows of a value: of a file, which stands in an identity with its digest, its name
/// alone.
std::string shown(const std::string& value) {
  const size_t digest = value.find(" sha256:");
  const std::filesystem::path path(value.substr(0, digest));
  const bool file =
      digest != std::string::npos || value.find('/') != std::string::npos || path.extension() == ".json";
  return file ? path.stem().string() : value;
}

/// Names lines and knobs: within a method, the numeric parameter with most distinct values is the knob, and
/// points that agree in all the others (or whose numbers all grow together) form a line.
void name_series(std::vector<PanelPoint>& points) {
  std::map<std::string, std::vector<PanelPoint*>> families;
  for (PanelPoint& p : points) families[p.method + "|" + p.backend].push_back(&p);
  for (auto& [family, members] : families) {
    const Varying varying = varying_params(members);
    std::string knob;
    size_t most = 0;
    for (const std::string& name : varying.numeric) {
      std::set<double> distinct;
      for (PanelPoint* p : members) distinct.insert(p->params[name].get<double>());
      if (distinct.size() > most) knob = name;
      most = std::max(most, distinct.size());
    }
    for (PanelPoint* p : members) {
      p->series = family;
      for (const std::string& name : varying.names) {
        const std::string text = value_text(p->params.value(name, json("-")));
        if (name != knob && !varying.together) p->series += str("|", name, "=", text);
        if (!text.empty()) p->short_label += (p->short_label.empty() ? "" : "/") + shown(text);
        p->knob += (p->knob.empty() ? "" : "/") + name;
      }
      if (!knob.empty()) p->knob_value = p->params[knob].get<double>();
    }
  }
}

/// Two settings that print alike (another version, backend or dtype) get what tells them apart.
void make_labels_unique(std::vector<PanelPoint>& points) {
  std::map<std::string, std::vector<PanelPoint*>> same;
  for (PanelPoint& p : points) same[p.label].push_back(&p);
  for (auto& [label, members] : same) {
    if (members.size() < 2) continue;
    std::set<std::string> backends, versions;
    for (PanelPoint* p : members) {
      backends.insert(p->backend);
      versions.insert(std::to_string(p->version));
    }
    for (PanelPoint* p : members) {
      if (backends.size() > 1) p->label += " @" + p->backend;
      if (versions.size() > 1) p->label += str(" v", p->version);
    }
  }
}

struct Builder {
  Panel panel;
  std::vector<const RunData*> runs;
};

/// "passkey", its parameters where one panel holds the task with different ones, and the scoring profile
/// unless it is the default one.
std::map<std::string, std::string> task_names(const std::vector<const RunData*>& runs) {
  std::map<std::string, std::set<std::string>> settings;
  for (const RunData* r : runs) settings[r->task].insert(r->task_params.dump());
  std::map<std::string, std::string> out;
  for (const RunData* r : runs) {
    std::string name = r->task;
    if (settings[r->task].size() > 1)
      for (const auto& [key, value] : r->task_params.items()) name += " " + key + "=" + value_text(value);
    if (!r->profile.empty() && r->profile != "official") name += " profile=" + r->profile;
    out[r->task + r->task_params.dump()] = name;
  }
  return out;
}

void fill(Builder& b, double score_margin) {
  Panel& panel = b.panel;
  const auto names = task_names(b.runs);
  auto task_of = [&](const RunData& r) { return names.at(r.task + r.task_params.dump()); };

  std::map<std::string, std::vector<const RunData*>> by_point;
  DenseTable dense;
  std::set<std::string> tasks;
  for (const RunData* r : b.runs) {
    by_point[r->point_key()].push_back(r);
    tasks.insert(task_of(*r));
    for (const auto& [id, s] : r->samples) {
      if (!s.ok()) continue;
      DenseOnSample& d = dense[r->workload_key() + id];
      const bool is_dense = r->method == "dense";
      const Timing& t = is_dense ? s.time : s.dense_time;
      if (!t.ttft_s.empty()) d.ttft.push_back(median(t.ttft_s));
      if (!t.attention_s.empty()) d.attention.push_back(median(t.attention_s));
      if (is_dense ? s.has_score : s.has_dense_score) d.score = is_dense ? s.score : s.dense_score;
    }
  }
  panel.tasks.assign(tasks.begin(), tasks.end());

  struct Source {
    PanelPoint point;
    std::vector<Measured> measured;
  };
  std::vector<Source> sources;
  bool have_dense = false;
  for (const auto& [key, runs] : by_point) {
    Source s;
    s.point.key = key;
    s.point.method = runs[0]->method;
    s.point.label = runs[0]->label;
    s.point.backend = runs[0]->backend;
    s.point.version = runs[0]->method_version;
    s.point.params = runs[0]->params;
    s.point.baseline = runs[0]->method == "dense";
    have_dense = have_dense || s.point.baseline;
    std::map<std::string, Measured>
        unique;  // a sample measured by two runs of one point (other count) counts once
    for (const RunData* r : runs) {
      s.point.run_ids.push_back(r->id);
      for (const auto& [id, sample] : r->samples) {
        const std::string sample_key = r->workload_key() + id;
        auto [it, fresh] = unique.emplace(sample_key, Measured{&sample, task_of(*r), sample_key});
        if (!fresh && (sample.ok() || !it->second.sample->ok())) it->second.sample = &sample;
      }
    }
    std::map<std::string, Grouped> stages;
    Grouped decode;
    for (auto& [sample_key, m] : unique) {
      s.measured.push_back(m);
      if (!m.sample->ok()) continue;
      for (const auto& [stage, seconds] : m.sample->stages_s) stages[stage].add(m.task, seconds);
      if (m.sample->decode_s >= 0) decode.add(m.task, m.sample->decode_s);
      s.point.device_peak_bytes = std::max(s.point.device_peak_bytes, m.sample->device_peak_bytes);
      s.point.kernels.insert(m.sample->kernels.begin(), m.sample->kernels.end());
    }
    auto mean_of_medians = [](const Strata& groups) {
      std::vector<double> medians;
      for (const auto& g : groups) medians.push_back(median(g));
      return mean(medians);
    };
    for (const auto& [stage, values] : stages) s.point.stages_s[stage] = mean_of_medians(values.strata());
    if (!decode.strata().empty()) s.point.decode_s = mean_of_medians(decode.strata());
    sources.push_back(std::move(s));
  }

  // Without a dense run of its own, dense is drawn from the paired baselines.
  std::map<std::string, SampleResult> made;
  if (!have_dense) {
    Source s;
    std::map<std::string, Measured> unique;
    for (const RunData* r : b.runs)
      for (const auto& [id, sample] : r->samples) {
        const std::string key = r->workload_key() + id;
        const DenseOnSample& d = dense[key];
        if (!sample.ok() || d.ttft.empty()) continue;
        SampleResult& x = made[key];
        x.id = id;
        x.status = "ok";
        x.has_score = d.score.has_value();
        x.score = d.score.value_or(0);
        x.density = 1;
        x.time = {{median(d.ttft)},
                  d.attention.empty() ? std::vector<double>{} : std::vector<double>{median(d.attention)}};
        unique[key] = {&x, task_of(*r), key};
      }
    for (auto& [key, m] : unique) s.measured.push_back(m);
    s.point.key = s.point.method = s.point.label = "dense";
    s.point.backend = b.runs[0]->backend;
    s.point.params = json::object();
    s.point.baseline = s.point.from_pairs = true;
    if (!s.measured.empty()) sources.push_back(std::move(s));
  }

  std::vector<PanelPoint> points;
  for (Source& s : sources) points.push_back(s.point);
  name_series(points);
  make_labels_unique(points);
  for (size_t i = 0; i < points.size(); ++i) sources[i].point = points[i];
  std::sort(sources.begin(), sources.end(), [](const Source& x, const Source& y) {
    auto rank = [](const PanelPoint& p) {
      return std::tie(p.method, p.series, p.knob_value, p.label, p.key);
    };
    if (x.point.baseline != y.point.baseline) return x.point.baseline;
    return rank(x.point) < rank(y.point);
  });
  for (const Source& s : sources) panel.points.push_back(s.point);

  std::vector<std::string> slices = {""};
  if (panel.tasks.size() > 1) slices.insert(slices.end(), panel.tasks.begin(), panel.tasks.end());
  for (const std::string& task : slices) {
    Slice slice;
    slice.task = task;
    const int expected = task.empty() ? static_cast<int>(panel.tasks.size()) : 1;
    std::set<std::string> prompts;
    for (const Source& s : sources) {
      slice.stats.push_back(measure(s.measured, task, dense, s.point.baseline, score_margin));
      for (const Measured& m : s.measured)
        if (task.empty() || m.task == task) prompts.insert(m.key);
    }
    for (PointStats& s : slice.stats) s.expected = static_cast<int>(prompts.size());
    for (Axis axis : all_axes) {
      std::vector<FrontierPoint> flat;
      for (const PointStats& s : slice.stats)
        flat.push_back(s.tasks_covered == expected ? FrontierPoint{s.score, s.cost(axis)} : FrontierPoint{});
      const std::vector<FrontierClass> classes = classify(flat);
      for (size_t i = 0; i < flat.size(); ++i) {
        slice.stats[i].frontier[static_cast<size_t>(axis)] = classes[i];
        if (axis != Axis::attention || !flat[i].score.has_interval() || !flat[i].cost.has_interval())
          continue;
        for (size_t j = 0; j < flat.size(); ++j)
          if (j != i && flat[j].score.has_interval() && flat[j].cost.has_interval() &&
              within_noise(flat[i], flat[j]))
            slice.stats[i].same_within_noise.push_back(static_cast<int>(j));
      }
    }
    panel.slices.push_back(std::move(slice));
  }
}

}  // namespace

std::string to_string(Axis axis) {
  return axis == Axis::ttft ? "ttft" : axis == Axis::attention ? "attention" : "density";
}

const Estimate& PointStats::cost(Axis axis) const {
  return axis == Axis::ttft ? ttft : axis == Axis::attention ? attention : density;
}

std::string Panel::title() const { return str(model, ", ", tokens, " tokens"); }

std::vector<Panel> build_panels(const std::vector<RunData>& runs, double score_margin) {
  // scores of two profiles are never pooled
  std::map<std::tuple<std::string, std::string, std::string, std::string, int, int64_t, std::string>, Builder>
      builders;
  for (const RunData& r : runs) {
    Builder& b = builders[{r.model, r.model_sha, r.hardware, r.dtype, r.threads, r.tokens, r.profile}];
    if (b.runs.empty()) {
      b.panel.model = r.model;
      b.panel.model_sha = r.model_sha;
      b.panel.hardware = r.hardware;
      b.panel.hardware_name = hardware_text(r);
      b.panel.dtype = r.dtype;
      b.panel.threads = r.threads;
      b.panel.tokens = r.tokens;
    }
    b.runs.push_back(&r);
  }
  std::vector<Panel> out;
  for (auto& [key, builder] : builders) {
    fill(builder, score_margin);
    out.push_back(std::move(builder.panel));
  }
  return out;
}

std::vector<BreakEven> break_even(const std::vector<Panel>& panels) {
  // (group, point) -> length -> speed-up
  struct Line {
    BreakEven base;
    std::map<int64_t, double> at;
  };
  std::map<std::string, Line> lines;
  for (const Panel& p : panels)
    for (size_t i = 0; i < p.points.size(); ++i) {
      if (p.points[i].baseline) continue;
      for (Axis axis : {Axis::ttft, Axis::attention}) {
        const PointStats& s = p.slices[0].stats[i];
        const Estimate& up = axis == Axis::ttft ? s.speedup_ttft : s.speedup_attention;
        if (!up.known()) continue;
        Line& line = lines[str(p.model, "|", p.model_sha, "|", p.hardware, "|", p.dtype, "|", p.threads, "|",
                               p.points[i].key, "|", to_string(axis))];
        line.base.model = p.model;
        line.base.hardware = p.hardware;
        line.base.dtype = p.dtype;
        line.base.label = p.points[i].label;
        line.base.method = p.points[i].method;
        line.base.axis = axis;
        line.at[p.tokens] = up.value;
      }
    }
  std::vector<BreakEven> out;
  for (auto& [key, line] : lines) {
    BreakEven b = line.base;
    b.shortest = line.at.begin()->first;
    b.longest = line.at.rbegin()->first;
    if (line.at.size() >= 2) {
      const bool first_faster = line.at.begin()->second >= 1;
      b.kind = first_faster ? BreakEven::always_faster : BreakEven::never_faster;
      // The last crossing from slower to faster: from there on the method pays at every measured length.
      for (auto low = line.at.begin(), high = std::next(low); high != line.at.end(); ++low, ++high) {
        if (low->second < 1 && high->second >= 1) {
          const double f = (1 - low->second) / (high->second - low->second);
          b.kind = BreakEven::crosses;
          b.tokens = std::exp(std::log(static_cast<double>(low->first)) * (1 - f) +
                              std::log(static_cast<double>(high->first)) * f);
        } else if (low->second >= 1 && high->second < 1) {
          b.kind = BreakEven::never_faster;  // slower again at longer prompts: no length from which it pays
        }
      }
    }
    out.push_back(b);
  }
  return out;
}

}  // namespace prefill
