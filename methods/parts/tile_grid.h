// The grid that a tile selection lives on, and the tiles that causality allows or demands there.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>

#include "core/plan.h"

namespace prefill {

inline constexpr double kInf = std::numeric_limits<double>::infinity();

/// Rows of q_tile queries by columns of k_tile keys over an n-token prompt; the last of each may be partial.
struct TileGrid {
  int64_t n = 0;
  int q_tile = 128, k_tile = 128;
  int64_t rows() const { return (n + q_tile - 1) / q_tile; }
  int64_t cols() const { return (n + k_tile - 1) / k_tile; }
};

/// Tiles of which some query of the row may see some key: bool [rows, cols]. Shared: not to be written to.
at::Tensor causal_tiles(const TileGrid&, at::Device);

/// What a method keeps whatever its scores say. Counts are tiles (key tiles for sink and local, rows for
/// last).
struct ForcedTiles {
  int64_t sink = 0;  ///< first key tiles of every row
  int64_t local =
      1;  ///< last causal key tiles of every row, counted from each of the row's own diagonal tiles
  int64_t last = 0;  ///< last rows that keep every causal tile
};

/// Bool [rows, cols], causality applied; shared, not to be written to. With local >= 1 it holds every tile
/// that the diagonal crosses, which is what a plan demands; local = 0 leaves them out, for selectors whose
/// source does not force the diagonal.
at::Tensor forced_tiles(const TileGrid&, const ForcedTiles&, at::Device);

/// A plan that computes mask [patterns, rows, cols] (bool): causality and the diagonal are applied here, and
/// query head h follows pattern h / (q_heads / patterns). Works without a host sync on CUDA.
AttentionPlan plan_from_mask(const at::Tensor& mask, const TileGrid&, int q_heads);

}  // namespace prefill
