// Inputs, plans and the correctness gate of the CPU benchmarks.
#pragma once
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/plan.h"

namespace prefill::bench {

/// How a plan is made for a length, so that the gate can ask for it at a short one.
using MakePlan = std::function<AttentionPlan(int q_heads, int64_t n)>;

struct Case {
  std::string backend;
  int q_heads, kv_heads, dim;
  int64_t n;
  at::ScalarType dtype;
  MakePlan plan;
};

inline constexpr int64_t kGateTokens = 700;

/// Lists of ids per row, the same for all heads but the seed -> CSR tensors with one pattern a head.
inline void to_csr(const std::vector<std::vector<std::vector<int>>>& lists, at::Tensor& ptr, at::Tensor& idx) {
  size_t most = 0;
  for (const auto& rows : lists) {
    size_t n = 0;
    for (const auto& row : rows) n += row.size();
    most = std::max(most, n);
  }
  ptr = at::zeros({int64_t(lists.size()), int64_t(lists[0].size()) + 1}, at::kInt);
  idx = at::zeros({int64_t(lists.size()), int64_t(most)}, at::kInt);
  for (size_t p = 0; p < lists.size(); ++p) {
    int *end = ptr[int64_t(p)].data_ptr<int>() + 1, *id = idx[int64_t(p)].data_ptr<int>(), n = 0;
    for (const auto& row : lists[p]) {
      for (int t : row) id[n++] = t;
      *end++ = n;
    }
  }
}

inline double error(const at::Tensor& got, const at::Tensor& want) {
  const auto w = want.to(at::kDouble), d = got.to(at::kDouble) - w;
  return (d.square().sum() / w.square().sum()).item<double>();
}

/// Normal values in [N,H,D] storage seen as [H,N,D], as a model hands them over; same seed, same values.
inline Qkv make_qkv(int q_heads, int kv_heads, int64_t n, int dim, at::ScalarType type) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  auto make = [&](int64_t heads) {
    at::Tensor t = at::empty({n, heads, dim}, at::kFloat);
    float* p = t.data_ptr<float>();
    for (int64_t i = 0; i < t.numel(); ++i) p[i] = normal(rng);
    return t.to(type).transpose(0, 1);
  };
  return {make(q_heads), make(kv_heads), make(kv_heads), 1 / std::sqrt(double(dim))};
}

/// A pattern per head: every tile below the diagonal with the chance that makes the causal density `density`.
inline AttentionPlan random_tiles(int q_heads, int64_t n, int tile, double density) {
  std::mt19937 rng(11);
  std::uniform_real_distribution<double> uniform;
  const int64_t rows = (n + tile - 1) / tile;
  // The diagonal holds about 1/rows of all pairs; the chance makes up for it.
  const double chance = std::max(0.0, (density - 1.0 / rows) / (1 - 1.0 / rows));
  std::vector<std::vector<std::vector<int>>> lists(q_heads);
  for (auto& list : lists)
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<int> row;
      for (int64_t t = 0; t <= r; ++t)
        if (t == r || uniform(rng) < chance) row.push_back(int(t));
      list.push_back(row);
    }
  AttentionPlan plan;
  for (int h = 0; h < q_heads; ++h) plan.heads.push_back({Route::tiles, h});
  plan.tiles.q_tile = plan.tiles.k_tile = tile;
  to_csr(lists, plan.tiles.tile_ptr, plan.tiles.tile_idx);
  return plan;
}

/// A pattern per head: tiles of q_tile x k_tile that start anywhere, with gaps that give about `density`.
inline AttentionPlan random_free_tiles(int q_heads, int64_t n, int q_tile, int k_tile, double density) {
  std::mt19937 rng(17);
  std::uniform_real_distribution<double> uniform;
  std::vector<std::vector<std::vector<int>>> lists(q_heads);
  for (auto& list : lists)
    for (int64_t first = 0; first < n; first += q_tile) {
      std::vector<int> row;
      const auto gap = [&] { return int64_t(2 * uniform(rng) * k_tile * (1 - density) / density); };
      for (int64_t key = gap(); key + k_tile <= first; key += k_tile + gap()) row.push_back(int(key));
      for (int64_t key = first; key < std::min(n, first + q_tile); key += k_tile) row.push_back(int(key));
      list.push_back(row);
    }
  AttentionPlan plan;
  for (int h = 0; h < q_heads; ++h) plan.heads.push_back({Route::tiles, h});
  plan.tiles.q_tile = q_tile;
  plan.tiles.k_tile = k_tile;
  plan.tiles.k_step = 1;
  to_csr(lists, plan.tiles.tile_ptr, plan.tiles.tile_idx);
  return plan;
}

/// The diagonal tiles plus a share of single columns, one list for each row of tiles.
inline AttentionPlan random_columns(int q_heads, int64_t n, int tile, double density) {
  AttentionPlan plan = random_tiles(q_heads, n, tile, 0);
  std::mt19937 rng(13);
  std::uniform_real_distribution<double> uniform;
  const int64_t rows = (n + tile - 1) / tile;
  std::vector<std::vector<std::vector<int>>> lists(q_heads);
  for (auto& list : lists)
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<int> row;
      for (int64_t j = 0; j < r * tile; ++j)
        if (uniform(rng) < density) row.push_back(int(j));
      list.push_back(row);
    }
  to_csr(lists, plan.tiles.col_ptr, plan.tiles.col_idx);
  return plan;
}

inline AttentionPlan window(int q_heads, int64_t sink, int64_t local) {
  AttentionPlan plan = AttentionPlan::uniform(q_heads, {Route::window, 0});
  plan.windows = {{sink, local, 0}};
  return plan;
}

/// Compares the backend with cpu-ref on the same kind of plan at kGateTokens tokens (cpu-ref needs minutes at 8K);
/// "" when it is right.
inline std::string wrong(const Case& c) {
  const auto got = backends().at(c.backend).make(), ref = backends().at("cpu-ref").make();
  const Qkv a = make_qkv(c.q_heads, c.kv_heads, kGateTokens, c.dim, c.dtype);
  const AttentionPlan plan = c.plan(c.q_heads, kGateTokens);
  // One rounding of the output: 2^-9 relative in bf16 (AMX: one more, of the probabilities), about 1e-6 in float32.
  const double bound = c.dtype == at::kFloat ? 1e-11 : c.dtype == at::kHalf ? 2e-7 : 1e-5;
  const double e = error(got->attend(a, plan).out, ref->attend(a, plan).out);
  return e <= bound ? "" : str("differs from cpu-ref: normalised mean squared error ", e, ", bound ", bound);
}

/// Checks, then times attend(). Counters: density, useful GFLOP/s (4 * dim per visible pair).
inline void run(benchmark::State& state, const std::string& name, const Case& c) {
  static std::set<std::string> right;  // Google Benchmark calls several times: check once
  const std::string kind = str(c.backend, c.q_heads, "/", c.kv_heads, "/", c.dim, at::toString(c.dtype), name);
  if (!right.count(kind)) {
    if (const std::string why = wrong(c); !why.empty()) return state.SkipWithError(why.c_str());
    right.insert(kind);
  }
  const auto backend = backends().at(c.backend).make();
  const Qkv a = make_qkv(c.q_heads, c.kv_heads, c.n, c.dim, c.dtype);
  const AttentionPlan plan = c.plan(c.q_heads, c.n);
  double pairs = 0, mean = 0;
  for (double d : density(plan, c.n)) {
    pairs += d * c.n * (c.n + 1) / 2;
    mean += d / c.q_heads;
  }
  for (auto _ : state) benchmark::DoNotOptimize(backend->attend(a, plan).out.data_ptr());
  state.counters["density"] = mean;
  state.counters["GFLOP/s"] =
      benchmark::Counter(4e-9 * c.dim * pairs, benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(backend->kernel_name(a, plan));
}

}  // namespace prefill::bench
