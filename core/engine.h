// plan -> attend -> observe for one prompt under one method on one backend.
#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/clock.h"
#include "core/method.h"

namespace prefill {

/// Where a model calls out for attention during prefill.
class AttentionHook {
 public:
  virtual ~AttentionHook() = default;
  /// [Hq,N,D] out of q, k, v of this layer (see Qkv).
  virtual at::Tensor prefill(int layer, const Qkv&) = 0;
  /// What another rank of the model makes its own hook from; null: this hook can not be made there.
  virtual nlohmann::json describe() const { return nullptr; }
};

/// Owns the method's per-prompt state, so the state can not outlive the prompt.
class AttentionEngine final : public AttentionHook {
 public:
  AttentionEngine(const Method&, const KernelBackend&, StageClock&, int64_t seq_len);
  at::Tensor prefill(int layer, const Qkv&) override;
  nlohmann::json describe() const override {
    return {{"method", method_.spec}, {"check_plans", check_plans}};
  }

  bool check_plans = false;               ///< run check() on every plan (tests, --check-plans)
  std::vector<AttentionPlan> footprints;  ///< [layers], for density after the clock has stopped
  std::set<std::string> kernels;          ///< kernel_name of every layer: a fallback shows here

  /// Mean over layers and heads; and per layer.
  double mean_density() const;
  std::vector<double> layer_density() const;
  /// What the method reports of this prompt (shared heads, ...).
  nlohmann::json facts() const { return method_.report(*state_); }

 private:
  const Method& method_;
  const KernelBackend& backend_;
  StageClock& clock_;
  int64_t seq_len_;
  std::unique_ptr<Method::State> state_;
};

}  // namespace prefill
