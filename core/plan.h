// The sparse plan: what a method asks a kernel to compute, and nothing about how. Because every method hands
// over one of these, density, checks and timing are computed once and alike for all of them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/error.h"

namespace prefill {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// A-shape: key j is visible to query i iff j <= i and (j < sink or i - j < local). `last` > 0 (tri-shape):
/// the last `last` queries of the prompt see every earlier key.
struct Window {
  int64_t sink = 0, local = 0, last = 0;
};

/// P causal patterns over one tile grid, CSR per pattern. Row r serves queries [r*q_tile, (r+1)*q_tile), key
/// tile t covers the k_tile keys from t*step() on; both are cut at the sequence's end. Inside a tile the
/// causal mask applies token by token. With k_step = 0 tiles lie side by side on an aligned grid; a k_step
/// that divides k_tile lets them start at every multiple of it (1: anywhere), as MInference's slashes do.
/// Invariants (see check()): tiles of a row ascend and do not overlap; no tile starts after the row's last
/// query; each row holds every tile that its own queries' diagonal crosses (unless the plan resumes one that
/// did), and where k_step is set those are the tiles that start at the row's first query, k_tile after it and
/// so on, while all others end before it, so that density needs no tile's position; columns ascend, are
/// unique, lie outside the tiles of every row of their group and before the group's first query. An index
/// tensor may be longer than its last pointer says (capacity), so that a GPU builds it without a sync.
struct TileSet {
  int q_tile = 64, k_tile = 64;
  int k_step = 0;       ///< keys from one tile id to the next; 0: k_tile
  at::Tensor tile_ptr;  ///< int32 [P, rows+1], offsets into tile_idx[p]; rows = ceil(n / q_tile)
  at::Tensor tile_idx;  ///< int32 [P, capacity]
  int col_rows = 1;     ///< tile rows that share one column list (AnchorAttention: 16)
  at::Tensor col_ptr;   ///< int32 [P, groups+1] or undefined; groups = ceil(rows / col_rows)
  at::Tensor col_idx;   ///< int32 [P, capacity]: single keys
  int step() const { return k_step ? k_step : k_tile; }
  /// Whether tiles lie on an aligned grid, as tile means and a pooled complement need it.
  bool aligned() const { return step() == k_tile; }
  /// First key of the first tile that the diagonal of a row with this first query crosses.
  int64_t diagonal_start(int64_t first_query) const {
    return aligned() ? first_query / k_tile * k_tile : first_query;
  }
};

/// How one query head is computed. Heads share a pattern by having equal routes; nothing is copied.
struct Route {
  enum Kind : uint8_t { dense, window, tiles } kind = dense;
  int32_t index = 0;  ///< into AttentionPlan::windows, or a pattern of AttentionPlan::tiles
  bool operator==(const Route&) const = default;
};

struct AttentionPlan;

/// Softmax state of the keys already visited, so that a second pass continues instead of repeating. Natural
/// logarithm domain: row_max = max of scaled logits, row_sum = sum of exp(logit - row_max), acc = sum of
/// exp(logit - row_max) * v, all float32; [Hq,N], [Hq,N], [Hq,N,D]. Key sets of chained passes are disjoint.
struct PartialSoftmax {
  at::Tensor row_max, row_sum, acc;
  std::shared_ptr<const AttentionPlan> covered;  ///< what produced it, for check() and density()
  /// A method that reproduces a release which counts keys twice says so here; check() then lets keys of both
  /// passes through. They enter the softmax twice, and density counts the work, also twice.
  bool overlap_allowed = false;
};

/// Mean correction (FlashPrefill V2): for a row whose first query is
/// f, every block b of `block` keys with (b+1)*block <= f none of whose keys lie in the row's tiles adds one
/// pooled key with logit q.k_mean[b]*scale + ln(block) and value v_mean[b]. `block` is a multiple of k_tile,
/// the tiles' grid aligned.
struct PooledComplement {
  int block = 128;
  at::Tensor k_mean, v_mean;  ///< [Hkv, ceil(n/block), D], dtype of k and v
};

struct AttentionPlan {
  std::vector<Route> heads;  ///< [q_heads]
  std::vector<Window> windows;
  TileSet tiles;
  std::vector<uint8_t> want_tile_mean;  ///< [q_heads] or empty; 1: observe() needs this head's tile means
  std::optional<PartialSoftmax> resume;
  std::optional<PooledComplement> complement;  ///< applies to the heads routed to tiles

  static AttentionPlan uniform(int q_heads, Route route);
};

/// Throws BrokenPlan naming head, row and the first broken invariant. Reads all index tensors (slow: tests,
/// plan files from outside, --check-plans).
void check(const AttentionPlan&, int q_heads, int64_t seq_len);

/// Causal (query, key) pairs computed / all causal pairs n(n+1)/2, per query head: visible pairs only, so a
/// full plan has density 1. Reads row pointers only. Includes what `resume` covered.
std::vector<double> density(const AttentionPlan&, int64_t seq_len);

/// The same plan without index tensors and softmax state: enough for density(), small enough to keep.
AttentionPlan footprint(const AttentionPlan&);

/// The plan with all of its tensors on the CPU.
AttentionPlan on_cpu(AttentionPlan);

/// Pattern p of a tile set as a boolean tile mask [rows, ceil(n/step)] on the CPU (columns left out): cell t
/// is the tile with id t, so on an aligned grid cells are disjoint.
at::Tensor tile_mask(const TileSet&, int64_t pattern, int64_t seq_len);

/// Boolean [P, rows, key_tiles] -> CSR over the same grid, on the mask's device, without a host sync on CUDA
/// beyond capacity = rows * key_tiles. The caller has applied causality and forced the diagonal.
TileSet tiles_from_mask(const at::Tensor& mask, int q_tile, int k_tile);

/// Token-level visibility [Hq, n, n] (bool, CPU) of a plan; quadratic memory, for tests and pictures.
at::Tensor token_mask(const AttentionPlan&, int64_t seq_len);

}  // namespace prefill
