// How much of the true attention a plan keeps.
#pragma once
#include <vector>

#include "core/backend.h"

namespace prefill {

/// Share of the dense causal softmax mass that lies on the plan's keys, mean over queries, per query head. A
/// pooled complement is left out (its keys are no keys of the prompt). Two attention passes: exp(lse of plan
/// - lse of dense).
std::vector<double> mass_recall(const KernelBackend&, const Qkv&, const AttentionPlan&);

}  // namespace prefill
