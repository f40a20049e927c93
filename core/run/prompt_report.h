// What one prefill tells besides its answer: where the time went, how much was computed, by what.
#pragma once
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/engine.h"

namespace prefill {

struct PromptReport {
  std::array<double, kStages> stages{};  ///< seconds
  int heads = 0;                         ///< query heads that it speaks of
  std::vector<double> layer_density;     ///< mean over those heads
  std::set<std::string> kernels;
  nlohmann::json facts = nlohmann::json::object();  ///< the method's own
  int64_t device_peak = 0;                          ///< bytes

  double attention_s() const;
  double density() const;  ///< mean over layers
};

/// Reads the clock, which waits for the device. `whole`: also what takes time to find out (densities, facts).
PromptReport report_of(const AttentionEngine&, StageClock&, const KernelBackend&, bool whole);

nlohmann::json to_json(const PromptReport&);
PromptReport prompt_report(const nlohmann::json&);

/// One report of all ranks, rank 0's first. Stages are those of the rank whose attention took longest: the
/// others wait for it. Densities are means over all heads; memory is the largest of any rank; facts stay
/// apart, as a list "ranks".
PromptReport merged(const std::vector<PromptReport>&);

}  // namespace prefill
