// Block masses of strided token groups (XAttention, UniSparse-like estimates): what the product kernel leaves
// for the kernel that normalises. The triangle of scores is covered by tiles of 128 query groups x 256 key
// groups.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/selection.h"

namespace prefill::kernels::cuda {

constexpr int kScoreRows = 128, kScoreCols = 256;  ///< query groups and key groups of a tile

/// Tiles of the lower triangle lie row of tiles after row of tiles: how many of them are in this row ...
__host__ __device__ inline int tile_columns(int row) { return row / 2 + 1; }
/// ... and in the rows before it.
__host__ __device__ inline int tiles_before(int row) { return (row / 2 + 1) * (row - row / 2); }
static_assert(kScoreCols == 2 * kScoreRows);

struct StridedParams {
  /// Dimensions [dim, token of the group, group, head]. [0] knows the last, partial group, [1] does not:
  /// tokens past the end are those of a group that does not exist, and load as zeros.
  CUtensorMap q[2], k[2];
  int partial;                            ///< tokens of the last group if it is not whole, else 0
  int q_heads, kv_heads, stride, halves;  ///< halves: head_dim / 64
  int first_kv_head;                      ///< of this launch
  int per_block;                          ///< groups of a block
  int row_tiles, band;                    ///< rows of tiles; how many of them walk the columns together
  bool rounded;                           ///< scores are rounded to the inputs' dtype
  float scale_log2;
  float2* stats;  ///< [head of this launch][tile][row]: largest scaled score, sum relative to it; base two
  float* sums;    ///< [head of this launch][tile][row][256 / per_block], relative to the same
  uint8_t key_order[128];  ///< the key of a group that each of its queries meets
};

/// Products, exponentials and sums of `kv_heads` key heads from first_kv_head on.
cudaError_t strided_scores_sm90(const StridedParams&, int kv_heads, bool half, int multiprocessors,
                                cudaStream_t);

}  // namespace prefill::kernels::cuda
