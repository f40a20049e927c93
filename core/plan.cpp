#include "core/plan.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/base/text.h"
#include "core/device_ops.h"

namespace prefill {
namespace {

/// Visible pairs of a row that serves queries [first, first+count) in the tiles that its diagonal crosses.
double diagonal_pairs(const TileSet& t, int64_t first, int64_t count) {
  const int64_t before = first - t.diagonal_start(first);  // keys of these tiles that every query sees
  const double nearest = double(before + 1), farthest = double(before + count);
  return (nearest + farthest) * double(count) / 2;
}
int64_t diagonal_tiles(const TileSet& t, int64_t first, int64_t count) {
  return (first + count - 1 - t.diagonal_start(first)) / t.k_tile + 1;
}

double window_pairs(const Window& w, int64_t n) {
  const int64_t reach = std::min(n, w.sink + w.local);
  const int64_t last = std::min(w.last, n);
  auto up_to = [&](int64_t m) {  // queries 0..m-1 under the window
    const int64_t r = std::min(m, reach);
    return double(r) * double(r + 1) / 2 + double(m - r) * double(reach);
  };
  const double full = double(n) * double(n + 1) / 2 - double(n - last) * double(n - last + 1) / 2;
  return up_to(n - last) + full;
}

}  // namespace

AttentionPlan AttentionPlan::uniform(int q_heads, Route route) {
  AttentionPlan p;
  p.heads.assign(size_t(q_heads), route);
  return p;
}

std::vector<double> density(const AttentionPlan& plan, int64_t n) {
  const double causal = double(n) * double(n + 1) / 2;
  const TileSet& t = plan.tiles;
  std::vector<double> pattern_pairs;
  if (t.tile_ptr.defined()) {
    const at::Tensor ptr = t.tile_ptr.to(at::kCPU, at::kInt).contiguous();
    const auto p = ptr.accessor<int, 2>();
    for (int64_t k = 0; k < ptr.size(0); ++k) {
      double pairs = 0;
      for (int64_t r = 0; r + 1 < ptr.size(1); ++r) {
        const int64_t first = r * t.q_tile, count = std::min<int64_t>(n - first, t.q_tile);
        const double tiles = double(p[k][r + 1] - p[k][r]);
        if (plan.resume)
          pairs += tiles * t.k_tile * double(count);
        else
          pairs += (tiles - double(diagonal_tiles(t, first, count))) * t.k_tile * double(count) +
                   diagonal_pairs(t, first, count);
      }
      pattern_pairs.push_back(pairs);
    }
    if (t.col_ptr.defined()) {
      const at::Tensor cols = t.col_ptr.to(at::kCPU, at::kInt).contiguous();
      const auto c = cols.accessor<int, 2>();
      const int64_t span = int64_t(t.q_tile) * t.col_rows;
      for (int64_t k = 0; k < cols.size(0); ++k)
        for (int64_t g = 0; g + 1 < cols.size(1); ++g)
          pattern_pairs[size_t(k)] +=
              double(c[k][g + 1] - c[k][g]) * double(std::min<int64_t>(n, (g + 1) * span) - g * span);
    }
  }
  std::vector<double> out;
  for (const Route& r : plan.heads) {
    double pairs = causal;
    if (r.kind == Route::tiles) pairs = pattern_pairs.at(size_t(r.index));
    if (r.kind == Route::window) pairs = window_pairs(plan.windows.at(size_t(r.index)), n);
    out.push_back(pairs / causal);
  }
  if (plan.resume && plan.resume->covered) {
    const auto before = density(*plan.resume->covered, n);
    for (size_t h = 0; h < out.size(); ++h) out[h] += before.at(h);
  }
  return out;
}

AttentionPlan footprint(const AttentionPlan& plan) {
  AttentionPlan f;
  f.heads = plan.heads;
  f.windows = plan.windows;
  f.tiles = plan.tiles;
  f.tiles.tile_idx = at::Tensor();
  f.tiles.col_idx = at::Tensor();
  if (plan.resume) {
    PartialSoftmax p;
    if (plan.resume->covered) p.covered = std::make_shared<AttentionPlan>(footprint(*plan.resume->covered));
    f.resume = p;
  }
  return f;
}

AttentionPlan on_cpu(AttentionPlan p) {
  for (at::Tensor* t : {&p.tiles.tile_ptr, &p.tiles.tile_idx, &p.tiles.col_ptr, &p.tiles.col_idx})
    if (t->defined()) *t = t->cpu();
  if (p.complement) {
    p.complement->k_mean = p.complement->k_mean.cpu();
    p.complement->v_mean = p.complement->v_mean.cpu();
  }
  if (p.resume) {
    for (at::Tensor* t : {&p.resume->row_max, &p.resume->row_sum, &p.resume->acc}) *t = t->cpu();
    if (p.resume->covered)
      p.resume->covered = std::make_shared<const AttentionPlan>(on_cpu(*p.resume->covered));
  }
  return p;
}

at::Tensor tile_mask(const TileSet& t, int64_t pattern, int64_t n) {
  const int64_t rows = ceil_div(n, t.q_tile), cols = ceil_div(n, t.step());
  at::Tensor mask = at::zeros({rows, cols}, at::kBool);
  const at::Tensor ptr = t.tile_ptr[pattern].to(at::kCPU).contiguous(),
                   idx = t.tile_idx[pattern].to(at::kCPU).contiguous();
  const int* p = ptr.data_ptr<int>();
  const int* ids = idx.data_ptr<int>();
  bool* out = mask.data_ptr<bool>();
  for (int64_t r = 0; r < rows; ++r)
    for (int i = p[r]; i < p[r + 1]; ++i) out[r * cols + ids[i]] = true;
  return mask;
}

TileSet tiles_from_mask(const at::Tensor& mask, int q_tile, int k_tile) {
  TileSet t;
  t.q_tile = q_tile;
  t.k_tile = k_tile;
  const int64_t patterns = mask.size(0), rows = mask.size(1), cols = mask.size(2);
  const at::Tensor counts = mask.sum(2, /*keepdim=*/false, at::kInt);
  t.tile_ptr = at::constant_pad_nd(counts.cumsum(1, at::kInt), {1, 0});
  if (mask.is_cpu()) {
    const int64_t capacity = std::max<int64_t>(1, counts.sum(1).max().item<int64_t>());
    t.tile_idx = at::zeros({patterns, capacity}, at::kInt);
    const at::Tensor m = mask.contiguous();
    const bool* in = m.data_ptr<bool>();
    int* ids = t.tile_idx.data_ptr<int>();
    for (int64_t p = 0; p < patterns; ++p) {
      int* at = ids + p * capacity;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c)
          if (in[(p * rows + r) * cols + c]) *at++ = int(c);
    }
    return t;
  }
  if (mask.is_cuda() && cuda_ops().true_columns) {
    t.tile_idx = cuda_ops().true_columns(mask.contiguous(), t.tile_ptr, {});
    return t;
  }
  // On a GPU each selected tile is scattered to its rank; the others go to a spare slot at the end.
  const int64_t cells = rows * cols;
  const at::Tensor flat = mask.view({patterns, cells});
  const at::Tensor rank = flat.to(at::kInt).cumsum(1, at::kLong) - 1;
  const at::Tensor target = at::where(flat, rank, at::full({}, cells, rank.options()));
  const at::Tensor ids =
      at::arange(cols, mask.options().dtype(at::kInt)).repeat({rows}).expand({patterns, cells});
  t.tile_idx =
      at::zeros({patterns, cells + 1}, mask.options().dtype(at::kInt)).scatter_(1, target, ids.contiguous());
  return t;
}

at::Tensor token_mask(const AttentionPlan& plan, int64_t n) {
  const int64_t heads = int64_t(plan.heads.size());
  at::Tensor mask = at::zeros({heads, n, n}, at::kBool);
  bool* out = mask.data_ptr<bool>();
  const TileSet& t = plan.tiles;
  for (int64_t h = 0; h < heads; ++h) {
    const Route& route = plan.heads[size_t(h)];
    bool* m = out + h * n * n;
    if (route.kind == Route::tiles) {
      const at::Tensor row_ptr = t.tile_ptr[route.index].to(at::kCPU).contiguous(),
                       starts = t.tile_idx[route.index].to(at::kCPU).contiguous();
      const int *p = row_ptr.data_ptr<int>(), *ids = starts.data_ptr<int>();
      for (int64_t i = 0; i < n; ++i)
        for (int c = p[i / t.q_tile]; c < p[i / t.q_tile + 1]; ++c) {
          const int64_t from = int64_t(ids[c]) * t.step(), to = std::min(i + 1, from + t.k_tile);
          if (from < to) std::fill(m + i * n + from, m + i * n + to, true);
        }
      if (t.col_ptr.defined()) {
        const at::Tensor col_ptr = t.col_ptr[route.index].to(at::kCPU).contiguous(),
                         keys = t.col_idx[route.index].to(at::kCPU).contiguous();
        const int *g = col_ptr.data_ptr<int>(), *key = keys.data_ptr<int>();
        for (int64_t i = 0; i < n; ++i) {
          const int64_t group = i / (int64_t(t.q_tile) * t.col_rows);
          for (int c = g[group]; c < g[group + 1]; ++c) m[i * n + key[c]] = true;
        }
      }
    } else {
      Window w{n, n, 0};
      if (route.kind == Route::window) w = plan.windows.at(size_t(route.index));
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j) m[i * n + j] = j < w.sink || i - j < w.local || i >= n - w.last;
    }
  }
  if (plan.resume && plan.resume->covered) mask |= token_mask(*plan.resume->covered, n);
  return mask;
}

}  // namespace prefill
