// Steps of a selection that a device has kernels of its own for. Callers go by ATen, which is right on every
// device, where a pointer is null; the device's adapter sets the pointers before main.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace prefill {

struct DeviceOps {
  /// Columns of the true cells of mask [P,rows,cols] (bool, contiguous), row after row: int32 [P,capacity],
  /// row r of pattern p from ptr[p][r] on (int32 [P,rows+1]). What lies past the last pointer is undefined.
  /// With `values` (int32 [P,cols]) it gives values[p][column] in place of the column.
  at::Tensor (*true_columns)(const at::Tensor& mask, const at::Tensor& ptr,
                             const at::Tensor& values) = nullptr;

  struct SlashLists {
    at::Tensor tile_ptr, tile_idx, col_ptr, col_idx;  ///< as in TileSet, k_step = 1
  };
  /// cover_vertical_slash of methods/parts/vertical_slash.h: the first counts[h] (int32 [H]) of columns[h]
  /// (int32 [H,C], ascending) and the true distances of bool [H,N], for rows of q_tile queries and tiles of
  /// `tile` keys; columns side by side stay columns. Undefined tensors where the kernel does not know the
  /// case.
  SlashLists (*cover_slashes)(const at::Tensor& columns, const at::Tensor& counts,
                              const at::Tensor& distances, int64_t q_tile, int64_t tile) = nullptr;

  struct Energy {
    double scale;
    int64_t q_tile, k_tile;
    bool first_token, per_kv_head, padded_rows;  ///< see EnergyOptions of methods/parts/scores.h
  };
  /// Tile energies of q [Hq,N,D] against block means kbar [Hkv,cols,D] of q's dtype (16 bits): float32
  /// [heads,rows,cols]. An undefined tensor where the kernel does not know the case.
  at::Tensor (*tile_energy)(const at::Tensor& q, const at::Tensor& kbar, const Energy&) = nullptr;

  struct Stripes {
    double scale;
    int64_t step, init,
        local;  ///< pooled queries per group; first and last keys, in tokens, that are no candidates
    int64_t span, groups;  ///< tokens per group; groups whose candidates are judged
  };
  /// AnchorAttention's hits: bool [Hq,ceil(N/span),N], whether for key j some pooled query of the group (qbar
  /// [Hq,blocks,D] float32) has scale * qbar.k >= bar [Hq,blocks]. k [Hkv,N,D] 16 bits. Undefined: unknown
  /// case.
  at::Tensor (*stripe_hits)(const at::Tensor& qbar, const at::Tensor& bar, const at::Tensor& k,
                            const Stripes&) = nullptr;

  /// The selectors of methods/parts/selectors.h on scores [H,R,C] float32: bool [H,R,C]. candidates and
  /// forced (may be undefined) broadcast. By mass when `shares` (float64 [1 or H], infinite: all) is defined,
  /// else by `counts` (int64, broadcasts to [H,R,1]). Undefined: unknown case.
  at::Tensor (*select_tiles)(const at::Tensor& scores, const at::Tensor& candidates, const at::Tensor& forced,
                             const at::Tensor& shares, const at::Tensor& counts) = nullptr;

  /// int64 [H]: how many of the largest entries of each row of x [H,N] float32 (not negative) sum to `mass`;
  /// at least 1, N where all of them do not reach it.
  at::Tensor (*count_for_mass)(const at::Tensor& x, double mass) = nullptr;

  /// softmax(scale * scores) of scores [H,R,C] float32 over the columns up to first_row + row, summed over
  /// its block x block cells into mass [H,R/block,C/block] float32 (a view, last dimension contiguous); rows
  /// from position real_rows on count nothing. False where the kernel does not know the case; mass is
  /// untouched.
  bool (*softmax_block_sums)(const at::Tensor& scores, double scale, int64_t block, int64_t first_row,
                             int64_t real_rows, const at::Tensor& mass) = nullptr;

  struct Strided {
    double scale;                           ///< of a sum over a group's products
    int64_t stride, block;                  ///< tokens
    const std::vector<int64_t>& key_order;  ///< [stride]: the key of a group that each of its queries meets
    bool rounded;                           ///< scores are rounded to q's dtype before they are scaled
  };
  /// antidiagonal_mass of methods/parts/scores.h from q [Hq,N,D] and k [Hkv,N,D] of 16 bits as they lie:
  /// float32 [Hq,nb,nb]. Undefined: unknown case.
  at::Tensor (*strided_mass)(const at::Tensor& q, const at::Tensor& k, const Strided&) = nullptr;

  /// block_mean_estimate of methods/parts/stripes.h: float32 [Hq,nb]. q [Hq,N,D] 16 bits, key_mean [Hkv,nb,D]
  /// float32. Undefined: unknown case.
  at::Tensor (*tail_block_means)(const at::Tensor& q, const at::Tensor& key_mean, double scale,
                                 int64_t rows) = nullptr;

  struct StripeTest {
    int64_t block, count_unit, least, most;
    double tau;
  };
  struct StripeNumbers {
    at::Tensor vertical, slash, verticals, slashes, aware;
  };
  /// choose_stripes of methods/parts/stripes.h from float32 [H,N] and the numbers of entries (int64 [H]) that
  /// reach the mass; from_means may be undefined.
  StripeNumbers (*choose_stripes)(const at::Tensor& vertical, const at::Tensor& slash,
                                  const at::Tensor& from_means, const at::Tensor& vertical_count,
                                  const at::Tensor& slash_count, const StripeTest&) = nullptr;

  /// top_counts of methods/parts/tail.h. Undefined: unknown case.
  at::Tensor (*top_counts)(const at::Tensor& scores, const at::Tensor& counts, int64_t forced) = nullptr;

  /// stripe_mask of methods/parts/vertical_slash.h.
  at::Tensor (*stripe_mask)(const at::Tensor& vertical, const at::Tensor& slash) = nullptr;

  /// add_query_aware_blocks of methods/parts/stripes.h to mask [Hq,nb,nb], without the host knowing which
  /// heads `aware` (bool [Hq]) marks. False: unknown case, mask is untouched.
  bool (*add_aware_blocks)(const at::Tensor& q, const at::Tensor& key_mean, const at::Tensor& aware,
                           double scale, int64_t block, double mass, const at::Tensor& mask) = nullptr;
};

/// Of CUDA tensors.
inline DeviceOps& cuda_ops() {
  static DeviceOps ops;
  return ops;
}

}  // namespace prefill
