// Patterns that are built row by row on the host: one per head or group of heads, filled independently (so
// that heads run in parallel), then packed into one TileSet.
#pragma once
#include <cstdint>
#include <vector>

#include "core/plan.h"

namespace prefill {

/// CSR of one pattern, see TileSet. Rows are appended in order; ids of a row ascend.
struct HostPattern {
  std::vector<int32_t> tile_ptr{0}, tile_idx;
  std::vector<int32_t> col_ptr{0}, col_idx;
  void end_row() { tile_ptr.push_back(int32_t(tile_idx.size())); }
  void end_group() { col_ptr.push_back(int32_t(col_idx.size())); }
};

/// Packs patterns of equal row counts into int32 tensors on `device`. col_rows = 0: no pattern has columns.
/// k_step as in TileSet.
TileSet pack_patterns(const std::vector<HostPattern>& patterns, int q_tile, int k_tile, int col_rows,
                      at::Device device, int k_step = 0);

/// Causal pairs (query, key) of the tile (row, key_tile) of an n-token prompt.
int64_t visible_pairs(int64_t row, int64_t key_tile, int q_tile, int k_tile, int64_t n);

/// Pairs of a tile row that its own queries may see: sum of (i + 1) over its queries.
int64_t row_pairs(int64_t row, int q_tile, int64_t n);

}  // namespace prefill
