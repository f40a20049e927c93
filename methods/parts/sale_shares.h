// SALE's estimate: which tiles of 64 queries x 32 keys hold a key that some query would give more than a
// share of its exact sink and local attention, judged by low-bit products (arXiv 2505.24179). The method and
// its calibration share it.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/backend.h"
#include "methods/parts/tile_grid.h"

namespace prefill {

constexpr int kSaleQueries = 64, kSaleKeys = 32;  // asserted in the release

struct SaleEstimate {
  int bits = 4;                    ///< of the products, 2 to 8; 0: not quantised
  std::string scales = "group";    ///< which tokens share a scale: "group" or "token"
  int64_t sink = 32, local = 128;  ///< exact keys, multiples of 32
};

/// Bool [rows, cols]: the first tiles, and the last ones so that what lies between is a multiple of 4 tiles.
at::Tensor sale_always(const TileGrid&, const SaleEstimate&, at::Device);

/// [Hq, rows, cols] float32: the largest log(exp(s - m) / l) of a tile, s the estimated logits, m and l
/// maximum and sum of the exact logits over the tiles of `always`; -inf above the diagonal.
at::Tensor sale_shares(const Qkv&, const TileGrid&, const at::Tensor& always, const SaleEstimate&);

/// Bool [Hq, rows, cols]: tiles of `always` and those above tau, one per query head; tau 0 keeps everything.
at::Tensor sale_mask(const at::Tensor& shares, const at::Tensor& always, const std::vector<double>& tau);

}  // namespace prefill
