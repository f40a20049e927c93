// One method on one layer, checked.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "core/engine.h"
#include "core/method.h"
#include "tests/methods2/synthetic.h"

namespace prefill::testing {

inline std::unique_ptr<KernelBackend> reference_backend() { return backends().at("cpu-ref").make(); }

inline MethodEnv env_of(const Qkv& x, int layers = 1) {
  return {.model = {.id = "synthetic",
                    .layers = layers,
                    .q_heads = x.q_heads(),
                    .kv_heads = x.kv_heads(),
                    .head_dim = x.head_dim()}};
}

/// The plan of one layer; check() has passed.
inline AttentionPlan plan_of(const std::string& method, const nlohmann::json& params, const Qkv& x,
                             int layer = 0) {
  const auto made = make_method(method, params, env_of(x, layer + 1));
  const auto backend = reference_backend();
  const auto clock = make_cpu_clock();
  const auto state = made->begin_prompt(x.seq_len());
  const AttentionPlan plan = made->plan({x, layer, x.seq_len(), *backend, *clock}, *state);
  check(plan, x.q_heads(), x.seq_len());
  return plan;
}

/// Tiles of query head h: bool [rows, cols].
inline at::Tensor tiles_of(const AttentionPlan& plan, int h, int64_t n) {
  return tile_mask(plan.tiles, plan.heads.at(size_t(h)).index, n);
}

/// Columns of query head h: bool [groups, n].
inline at::Tensor columns_of(const AttentionPlan& plan, int h, int64_t n) {
  const int64_t p = plan.heads.at(size_t(h)).index, groups = plan.tiles.col_ptr.size(1) - 1;
  at::Tensor out = at::zeros({groups, n}, at::kBool);
  const int* ptr = plan.tiles.col_ptr[p].data_ptr<int>();
  const int* idx = plan.tiles.col_idx[p].data_ptr<int>();
  for (int64_t g = 0; g < groups; ++g)
    for (int i = ptr[g]; i < ptr[g + 1]; ++i) out[g][idx[i]] = true;
  return out;
}

}  // namespace prefill::testing
