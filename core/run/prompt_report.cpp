#include "core/run/prompt_report.h"

#include <algorithm>
#include <numeric>

namespace prefill {
using nlohmann::json;

double PromptReport::attention_s() const { return std::accumulate(stages.begin(), stages.end(), 0.0); }

double PromptReport::density() const {
  return std::accumulate(layer_density.begin(), layer_density.end(), 0.0) /
         double(std::max<size_t>(1, layer_density.size()));
}

PromptReport report_of(const AttentionEngine& engine, StageClock& clock, const KernelBackend& backend,
                       bool whole) {
  PromptReport r;
  r.stages = clock.seconds();
  if (!whole) return r;
  r.device_peak = backend.peak_bytes();
  r.heads = engine.footprints.empty() ? 0 : int(engine.footprints[0].heads.size());
  r.layer_density = engine.layer_density();
  r.kernels = engine.kernels;
  r.facts = engine.facts();
  return r;
}

json to_json(const PromptReport& r) {
  return {{"stages", r.stages},   {"heads", r.heads}, {"layer_density", r.layer_density},
          {"kernels", r.kernels}, {"facts", r.facts}, {"device_peak", r.device_peak}};
}

PromptReport prompt_report(const json& j) {
  PromptReport r;
  r.stages = j.at("stages").get<std::array<double, kStages>>();
  r.heads = j.at("heads").get<int>();
  r.layer_density = j.at("layer_density").get<std::vector<double>>();
  r.kernels = j.at("kernels").get<std::set<std::string>>();
  r.facts = j.at("facts");
  r.device_peak = j.at("device_peak").get<int64_t>();
  return r;
}

PromptReport merged(const std::vector<PromptReport>& ranks) {
  if (ranks.size() == 1) return ranks[0];
  PromptReport all;
  json facts = json::array();
  for (const PromptReport& r : ranks) {
    if (r.attention_s() > all.attention_s()) all.stages = r.stages;
    all.heads += r.heads;
    all.layer_density.resize(std::max(all.layer_density.size(), r.layer_density.size()));
    for (size_t l = 0; l < r.layer_density.size(); ++l) all.layer_density[l] += r.layer_density[l] * r.heads;
    all.kernels.insert(r.kernels.begin(), r.kernels.end());
    all.device_peak = std::max(all.device_peak, r.device_peak);
    facts.push_back(r.facts);
  }
  for (double& d : all.layer_density) d /= double(all.heads);
  const bool any = std::any_of(facts.begin(), facts.end(), [](const json& f) { return !f.empty(); });
  if (any) all.facts = {{"ranks", facts}};
  return all;
}

}  // namespace prefill
