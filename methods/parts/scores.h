// Cheap estimates of where attention goes, shared by the methods. Inputs are q [Hq,N,D] and k [Hkv,N,D] of
// any float dtype and any strides with innermost 1, query head h reading key head h / (Hq/Hkv); results are
// float32 on the input's device. Long prompts are worked through in bands of rows, so that memory stays
// small.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "methods/parts/tile_grid.h"

namespace prefill {

/// How a partial last block is averaged: over the tokens it has, or as if zeros filled it (zero-padded
/// releases).
enum class TailMean { over_count, over_block };

/// Means of `block` consecutive rows: [H,N,D] -> [H, ceil(N/block), D] float32.
at::Tensor block_means(const at::Tensor& x, int64_t block, TailMean tail = TailMean::over_count);

/// Rounds to the precision of `dtype` and back to float32: what a release keeps in the model's dtype.
at::Tensor rounded_to(const at::Tensor& x, at::ScalarType dtype);

/// a [Hq,M,D] times b [Hkv,C,D] transposed -> [Hq,M,C], without repeating b for the heads of a group.
at::Tensor grouped_dot(const at::Tensor& a, const at::Tensor& b);

/// The same of 16-bit tensors on a GPU, with the products and sums in float32: [Hq,M,C] float32.
at::Tensor grouped_dot_16(const at::Tensor& a, const at::Tensor& b);

/// Works through `rows` in bands so that heads * band * cols scores stay within 4 MiB of float32 on a CPU
/// (its caches, and little waste above the diagonal) and 256 MiB on a GPU; bands are multiples of `unit`.
/// step(first, count) sees each band once, in order.
void in_bands(at::Device, int64_t rows, int64_t heads, int64_t cols, int64_t unit,
              const std::function<void(int64_t, int64_t)>& step);

/// Softmax over the candidates of each row, 0 elsewhere and in rows that have none. Candidates broadcast.
at::Tensor masked_softmax(const at::Tensor& logits, const at::Tensor& candidates);

/// Which queries may score a block of keys: those that see its last token (FlashPrefill) or its first (its
/// V2).
enum class Sees { last_token, first_token };

struct EnergyOptions {
  Sees sees = Sees::last_token;
  bool per_kv_head =
      false;  ///< sum over the query heads of a group: [Hkv, rows, cols] instead of [Hq, rows, cols]
  bool row_softmax =
      false;  ///< ablation: sum of each query's own softmax over the blocks it sees, not the energy
  bool padded_rows =
      false;  ///< zero queries fill the last row of tiles and take part, as in FlashPrefill's release
};

/// Tile energy (FlashPrefill, arXiv 2603.06199): e(r,c) = sum over the queries i of row r that see block c of
/// exp(q_i . kbar_c * scale - M_r), M_r the largest of the row's logits. Not an average of softmaxes: one
/// query with a large logit decides. means [Hkv, cols, D] are the block means, in float32 or in q's dtype (16
/// bits: a GPU has a kernel for them).
at::Tensor tile_energy(const at::Tensor& q, const at::Tensor& means, double scale, const TileGrid&,
                       EnergyOptions);

/// softmax(scale * scores) of the rows from position first_row on over the columns up to their own position,
/// summed over block x block cells: scores [H,R,C] float32 (overwritten) -> into [H,R/block,C/block]. Rows from
/// position real_rows on count nothing. R and C are multiples of block.
void causal_block_sums(at::Tensor scores, double scale, int64_t block, int64_t first_row, int64_t real_rows,
                       at::Tensor into);

struct AntidiagonalOptions {
  int stride = 16;
  std::string mode = "antidiagonal";  ///< "antidiagonal", "diagonal", "random", "double", "triple"
  double norm = 1;                    ///< extra divisor of the logits
  at::ScalarType keep = at::kFloat;   ///< dtype that scores and masses are stored in
  /// Follow the release's unfused path: scaling, probabilities and both partial sums rounded to `keep`.
  bool round_every_step = false;
  int64_t own_chunk =
      0;              ///< > 0: key groups outside the query's own chunk of so many tokens are lost (its bug)
  uint64_t seed = 0;  ///< mode "random": the permutation
};

/// Strided group scores (XAttention, arXiv 2503.16428): tokens in groups of `stride`, the score of a query
/// group and a key group is the sum of products along the antidiagonal of their stride x stride square;
/// softmax over the causal key groups; summed over the groups of each (block x block) tile -> [Hq, nb, nb], a
/// row's sum being the number of its groups. `block` must be a multiple of the stride.
at::Tensor antidiagonal_mass(const at::Tensor& q, const at::Tensor& k, double scale, int64_t block,
                             const AntidiagonalOptions&);

/// Upper bound of q.k over each block of keys from the per-channel extremes (Quest, arXiv 2406.10774), for
/// query representatives qbar [Hq,rows,D] -> [Hq, rows, ceil(N/block)], unscaled.
at::Tensor minmax_bound(const at::Tensor& qbar, const at::Tensor& k, int64_t block);

}  // namespace prefill
