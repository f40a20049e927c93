// Seeded Q, K, V with the structures that methods look for, and one prompt's way through a method.
#pragma once
#include <string>
#include <vector>

#include "core/engine.h"

namespace prefill::conformance {

struct Shape {
  int64_t n;
  int q_heads, kv_heads, head_dim;
  int layers = 2;
  std::string text() const;
};

/// Random keys with sinks, heavy columns, and a preference for near keys and for one distance, so that
/// methods have something to find. Same seed and layer, same values.
Qkv planted(const Shape&, int64_t seed, int layer);

/// The model that the shape stands for. rope_theta is set, since methods that need one must run.
MethodEnv env_of(const Shape&);

/// Every layer's plan and output of one prompt.
struct PromptRun {
  std::vector<AttentionPlan> plans;
  std::vector<at::Tensor> outs;
};
PromptRun run_prompt(const Method&, const KernelBackend&, const Shape&, int64_t seed);

/// The causal softmax over the keys of a boolean mask [Hq,n,n], in double: {out [Hq,n,D], lse [Hq,n]}.
std::pair<at::Tensor, at::Tensor> masked_attention(const Qkv&, const at::Tensor& mask);

/// "" when both plans ask for the same computation, else the first difference.
std::string difference(const AttentionPlan& a, const AttentionPlan& b, int64_t n);

}  // namespace prefill::conformance
