#include "methods/parts/tile_grid.h"

#include <ATen/ATen.h>

#include <deque>
#include <functional>

namespace prefill {
namespace {

/// What a mask of a grid is made from, and nothing else.
struct MaskKey {
  int64_t n, q_tile, k_tile, sink, local, last;
  bool causal_only;
  at::Device device;
  bool operator==(const MaskKey&) const = default;
};

/// All layers of a prompt ask for the same few masks. On a GPU making one takes some ten launches, which for
/// short prompts is longer than attention: the last few are kept.
at::Tensor remembered(const MaskKey& key, const std::function<at::Tensor()>& make) {
  thread_local std::deque<std::pair<MaskKey, at::Tensor>> kept;
  for (const auto& [known, mask] : kept)
    if (known == key) return mask;
  const at::Tensor mask = make().contiguous();
  if (mask.numel() > int64_t(1) << 24) return mask;  // 16 MB each at most
  if (kept.size() == 6) kept.pop_front();
  kept.emplace_back(key, mask);
  return mask;
}

struct RowBounds {
  at::Tensor first, last, col;  ///< int64 [rows,1] key tile of the row's first and last query; [1,cols] ids
};

RowBounds bounds(const TileGrid& g, at::Device device) {
  const auto ids = at::TensorOptions().dtype(at::kLong).device(device);
  at::Tensor row = at::arange(g.rows(), ids).unsqueeze(1);
  at::Tensor last_query = (row * g.q_tile + (g.q_tile - 1)).clamp_max(g.n - 1);
  return {(row * g.q_tile).div(g.k_tile, "floor"), last_query.div(g.k_tile, "floor"),
          at::arange(g.cols(), ids).unsqueeze(0)};
}

}  // namespace

at::Tensor causal_tiles(const TileGrid& g, at::Device device) {
  return remembered({g.n, g.q_tile, g.k_tile, 0, 0, 0, true, device}, [&] {
    const RowBounds b = bounds(g, device);
    return b.col <= b.last;
  });
}

at::Tensor forced_tiles(const TileGrid& g, const ForcedTiles& forced, at::Device device) {
  return remembered({g.n, g.q_tile, g.k_tile, forced.sink, forced.local, forced.last, false, device}, [&] {
    const RowBounds b = bounds(g, device);
    at::Tensor keep = (b.col < forced.sink).expand({g.rows(), g.cols()});
    if (forced.local > 0) keep = keep | (b.col > b.first - forced.local);
    if (forced.last > 0) {
      at::Tensor row = at::arange(g.rows(), b.col.options()).unsqueeze(1);
      keep = keep | (row >= g.rows() - forced.last);
    }
    return keep & (b.col <= b.last);
  });
}

AttentionPlan plan_from_mask(const at::Tensor& mask, const TileGrid& g, int q_heads) {
  const int64_t patterns = mask.size(0);
  at::Tensor diagonal = forced_tiles(g, {.sink = 0, .local = 1, .last = 0}, mask.device());
  AttentionPlan plan = AttentionPlan::uniform(q_heads, {Route::tiles, 0});
  for (int h = 0; h < q_heads; ++h) plan.heads[size_t(h)].index = int32_t(h / (q_heads / patterns));
  plan.tiles = tiles_from_mask((mask & causal_tiles(g, mask.device())) | diagonal, g.q_tile, g.k_tile);
  return plan;
}

}  // namespace prefill
