// Vertical lines (keys) and slashes (distances) -> the tiles and columns that cover them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "methods/parts/host_pattern.h"

namespace prefill {

/// Block granular, on the device of its arguments. vertical [H,nb] bool: key block c for every later row;
/// slash [H,nb] bool: block offset s = row - c. -> causal tile mask [H,nb,nb] bool.
at::Tensor stripe_mask(const at::Tensor& vertical, const at::Tensor& slash);

/// Token granular, one head, on the host. `columns` and `distances` ascend and are unique; 0 <= both < n.
struct VerticalSlash {
  std::vector<int32_t> columns, distances;
};

/// Covers key j of query i whenever j is a column or i - j a distance, causally: a tile wherever a slash
/// touches it, single columns elsewhere. Tiles are aligned squares of `tile`; a tile all of whose keys are
/// columns becomes a whole tile; the diagonal tile is always there.
HostPattern cover_vertical_slash(const VerticalSlash&, int tile, int64_t n);

/// The same for all heads at once, on the device of its arguments and without a wait for it: columns,
/// distances [H,n] bool, at most `most` columns a head. The TileSet has a pattern per head and columns per
/// row of tiles.
TileSet cover_vertical_slash(const at::Tensor& columns, const at::Tensor& distances, int64_t most, int tile);

/// The set that MInference's released index conversion computes (csrc/vertical_slash_index.cu: 64-wide ranges
/// that start at (row end - distance - 64) and are merged in steps of 64), exactly: the part of a range that
/// fills no aligned tile becomes columns. `distances` must contain 0.
HostPattern cover_vertical_slash_released(const VerticalSlash&, int64_t n);

}  // namespace prefill
