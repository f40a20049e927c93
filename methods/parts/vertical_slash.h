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

struct SlashTiles {
  int q_tile, k_tile;
};

/// Covers key j of query i whenever j is a column or i - j a distance, causally. Tiles start anywhere
/// (TileSet::k_step = 1): from a row's first query backwards, each ends at the nearest key that no tile holds
/// yet and a slash crosses within the row. How far its tiles lie from its first query is so the same for
/// every row. Single columns are what lies outside of tiles: the chosen ones, and the first keys where a tile
/// would begin before the prompt; k_tile of them side by side are a tile. The row's own queries are tiles.
HostPattern cover_vertical_slash(const VerticalSlash&, SlashTiles, int64_t n);

/// The same keys for all heads at once, on the device of its arguments and, on a GPU, without a wait for it:
/// columns, distances [H,n] bool, at most `most` columns a head. The TileSet has a pattern per head.
TileSet cover_vertical_slash(const at::Tensor& columns, const at::Tensor& distances, int64_t most,
                             SlashTiles);

/// The set that MInference's released index conversion computes (csrc/vertical_slash_index.cu: 64-wide ranges
/// that start at (row end - distance - 64) and are merged in steps of 64), exactly, for rows of 64 queries
/// and tiles as above; what a range holds before the row's own queries and fills no tile becomes columns.
/// `distances` must contain 0.
HostPattern cover_vertical_slash_released(const VerticalSlash&, int64_t n);

}  // namespace prefill
