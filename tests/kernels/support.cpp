#include "tests/kernels/support.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace prefill::testing {
namespace {

at::Tensor randn(at::IntArrayRef sizes, std::mt19937_64& rng) {
  at::Tensor t = at::empty(sizes, at::kFloat);
  std::normal_distribution<float> normal;
  float* p = t.data_ptr<float>();
  for (int64_t i = 0; i < t.numel(); ++i) p[i] = normal(rng);
  return t;
}

at::Tensor csr_ptr(const std::vector<std::vector<std::vector<int>>>& lists) {
  at::Tensor ptr = at::zeros({int64_t(lists.size()), int64_t(lists[0].size()) + 1}, at::kInt);
  for (size_t p = 0; p < lists.size(); ++p)
    for (size_t r = 0; r < lists[p].size(); ++r)
      ptr[int64_t(p)][int64_t(r) + 1] = ptr[int64_t(p)][int64_t(r)].item<int>() + int(lists[p][r].size());
  return ptr;
}

/// Capacity is larger than any pattern needs, and the rest holds ids that would crash whoever reads them.
at::Tensor csr_idx(const std::vector<std::vector<std::vector<int>>>& lists) {
  size_t most = 0;
  for (const auto& pattern : lists) {
    size_t n = 0;
    for (const auto& row : pattern) n += row.size();
    most = std::max(most, n);
  }
  at::Tensor idx =
      at::full({int64_t(lists.size()), int64_t(most) + 3}, std::numeric_limits<int>::max(), at::kInt);
  for (size_t p = 0; p < lists.size(); ++p) {
    int* at = idx[int64_t(p)].data_ptr<int>();
    for (const auto& row : lists[p])
      for (int id : row) *at++ = id;
  }
  return idx;
}

}  // namespace

Qkv random_qkv(const Shape& s, uint64_t seed, bool strided) {
  std::mt19937_64 rng(seed);
  auto make = [&](int64_t heads) {
    auto t = randn({heads, s.n, s.dim}, rng).to(s.dtype);
    return strided ? t.transpose(0, 1).contiguous().transpose(0, 1) : t;
  };
  const auto q = make(s.q_heads), k = make(s.kv_heads), v = make(s.kv_heads);
  return {q, k, v, 1.3 / std::sqrt(double(s.dim))};
}

AttentionPlan random_plan(const Shape& s, const PlanOptions& o, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<double> uniform;
  AttentionPlan plan;
  const int64_t rows = (s.n + o.q_tile - 1) / o.q_tile, groups = (rows + o.col_rows - 1) / o.col_rows;
  std::vector<std::vector<std::vector<int>>> tiles(o.patterns), columns(o.patterns);
  for (int p = 0; p < o.patterns; ++p) {
    const double chance = p == 0 && o.patterns > 1 ? 0.0 : o.density;  // one pattern with the diagonal only
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = r * o.q_tile, last = std::min(first + o.q_tile, s.n) - 1;
      std::vector<int> row;
      const int64_t step = o.k_step ? o.k_step : o.k_tile;
      if (o.k_step) {
        for (int64_t key = 0; key + o.k_tile <= first;) {
          const bool take = uniform(rng) < chance;
          if (take) row.push_back(int(key / step));
          key += take ? o.k_tile : step * (1 + int64_t(rng() % 5));
        }
        for (int64_t key = first; key <= last && o.diagonal; key += o.k_tile) row.push_back(int(key / step));
      }
      for (int64_t t = 0; !o.k_step && t * o.k_tile <= last; ++t) {
        const bool crosses = (t + 1) * o.k_tile > first;
        if ((crosses && o.diagonal) || uniform(rng) < chance) row.push_back(int(t));
      }
      tiles[p].push_back(row);
    }
    for (int64_t g = 0; g < groups; ++g) {
      std::vector<int> list;
      const int64_t first_query = g * o.col_rows * o.q_tile;
      for (int64_t j = 0; j < first_query; ++j) {
        bool inside = false;
        for (int64_t r = g * o.col_rows; r < std::min((g + 1) * o.col_rows, rows); ++r)
          for (int t : tiles[p][r]) {
            const int64_t from = t * int64_t(o.k_step ? o.k_step : o.k_tile);
            inside = inside || (j >= from && j < from + o.k_tile);
          }
        if (!inside && uniform(rng) < 0.15) list.push_back(int(j));
      }
      columns[p].push_back(list);
    }
  }
  plan.tiles.q_tile = o.q_tile;
  plan.tiles.k_tile = o.k_tile;
  plan.tiles.k_step = o.k_step;
  plan.tiles.tile_ptr = csr_ptr(tiles);
  plan.tiles.tile_idx = csr_idx(tiles);
  if (o.columns) {
    plan.tiles.col_rows = o.col_rows;
    plan.tiles.col_ptr = csr_ptr(columns);
    plan.tiles.col_idx = csr_idx(columns);
  }
  plan.windows = {{4, 20, 0}, {7, 33, 9}, {0, 1, 0}};
  for (int h = 0; h < s.q_heads; ++h) {
    Route r{Route::tiles, h % o.patterns};
    if (o.mixed_routes && h % 5 == 2) r = {Route::dense, 0};
    if (o.mixed_routes && h % 5 == 3) r = {Route::window, int32_t(h % plan.windows.size())};
    plan.heads.push_back(r);
  }
  return plan;
}

PooledComplement random_complement(const Shape& s, int block, uint64_t seed) {
  std::mt19937_64 rng(seed);
  const int64_t blocks = (s.n + block - 1) / block;
  return {block, randn({s.kv_heads, blocks, s.dim}, rng).to(s.dtype),
          randn({s.kv_heads, blocks, s.dim}, rng).to(s.dtype)};
}

Expected brute_force(const Qkv& a, const AttentionPlan& plan) {
  const int64_t n = a.seq_len(), hq = a.q_heads(), group = hq / a.kv_heads();
  const double lowest = -std::numeric_limits<double>::infinity();
  auto spread = [&](const at::Tensor& x) { return x.to(at::kDouble).repeat_interleave(group, 0); };
  const auto q = a.q.to(at::kDouble);
  auto logits = at::matmul(q, spread(a.k).transpose(1, 2)) * a.scale;
  logits.masked_fill_(token_mask(plan, n).logical_not(), lowest);
  auto values = spread(a.v);
  if (plan.complement) {
    const PooledComplement& c = *plan.complement;
    const int64_t blocks = c.k_mean.size(1);
    auto pooled = at::matmul(q, spread(c.k_mean).transpose(1, 2)) * a.scale + std::log(double(c.block));
    for (int64_t h = 0; h < hq; ++h) {
      const bool tiled = plan.heads[h].kind == Route::tiles;
      at::Tensor cells;
      if (tiled) cells = tile_mask(plan.tiles, plan.heads[h].index, n);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t row = i / plan.tiles.q_tile, first = row * plan.tiles.q_tile;
        for (int64_t b = 0; b < blocks; ++b) {
          bool stands_in = tiled && (b + 1) * c.block <= first;
          for (int64_t j = b * c.block; stands_in && j < (b + 1) * c.block; j += plan.tiles.k_tile)
            stands_in = !cells[row][j / plan.tiles.k_tile].item<bool>();
          if (!stands_in) pooled[h][i][b] = lowest;
        }
      }
    }
    logits = at::cat({logits, pooled}, 2);
    values = at::cat({values, spread(c.v_mean)}, 1);
  }
  Expected e;
  const auto probs = at::softmax(logits, -1);
  e.out = at::matmul(probs, values);
  e.lse = at::logsumexp(logits, {-1});
  e.row_max = logits.amax(-1);
  e.row_sum = at::exp(e.lse - e.row_max);
  const int64_t qt = plan.tiles.q_tile, kt = plan.tiles.k_tile, rows = (n + qt - 1) / qt,
                cols = (n + kt - 1) / kt;
  e.tile_mean = at::zeros({hq, rows, cols}, at::kDouble);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      e.tile_mean.select(1, r).select(1, c).copy_(probs.slice(1, r * qt, std::min(n, (r + 1) * qt))
                                                      .slice(2, c * kt, std::min(n, (c + 1) * kt))
                                                      .sum(-1)
                                                      .mean(-1));
  return e;
}

double nmse(const at::Tensor& got, const at::Tensor& want) {
  const auto g = got.to(at::kDouble);
  if (!at::isfinite(g).all().item<bool>()) return std::numeric_limits<double>::infinity();
  return ((g - want).square().sum() / want.square().sum().clamp_min(1e-300)).item<double>();
}

double nmse_bound(at::ScalarType type) {
  // float32: sums of up to a few hundred terms in single precision, each rounded by at most 2^-24 relative,
  // and an exp of 2e-7: a relative error of 1e-6, squared, with a factor of 10 for cancellation in the
  // output. bfloat16 and float16: inputs are exact, the output is rounded once: relative error at most u =
  // 2^-9 (2^-12 for float16... half an ulp of 11 bits), mean square u^2/3. AMX also rounds the probabilities
  // to bfloat16, which adds as much again before averaging: u^2 bounds both.
  if (type == at::kFloat) return 1e-11;
  const double u = type == at::kHalf ? 0x1p-11 : 0x1p-8;
  return u * u / 3 * 2;
}

}  // namespace prefill::testing
