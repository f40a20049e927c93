#include "methods/parts/tile_grid.h"

#include <ATen/ATen.h>

namespace prefill {
namespace {

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
  const RowBounds b = bounds(g, device);
  return b.col <= b.last;
}

at::Tensor forced_tiles(const TileGrid& g, const ForcedTiles& forced, at::Device device) {
  const RowBounds b = bounds(g, device);
  at::Tensor keep = (b.col < forced.sink).expand({g.rows(), g.cols()});
  if (forced.local > 0) keep = keep | (b.col > b.first - forced.local);
  if (forced.last > 0) {
    at::Tensor row = at::arange(g.rows(), b.col.options()).unsqueeze(1);
    keep = keep | (row >= g.rows() - forced.last);
  }
  return keep & (b.col <= b.last);
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
