// What the last queries of the prompt say about every key and every distance, and the set sizes that
// FlexPrefill and SharePrefill read off it. All functions take and give tensors on the prompt's device.
#pragma once
#include <ATen/core/Tensor.h>

#include "core/method.h"

namespace prefill {

/// Mean attention of the last `rows` queries. vertical[h,j]: on key j. slash[h,d]: at distance d = query -
/// key. Both [Hq,N] float32; each row sums to 1 (softmax base e in float32, causal).
struct TailStats {
  at::Tensor vertical, slash;
  int64_t rows = 0;
};

/// The last min(last_q, N) queries. Opens no stage; the caller's stage is `estimate`.
TailStats tail_stats(const LayerContext& c, int64_t last_q);

/// [H,N] -> [H,ceil(N/block)]: sums over consecutive entries; the last bin may be shorter.
at::Tensor sum_bins(const at::Tensor& x, int block);

/// [H,N] by distance -> [H,nb] by block offset. Bin s holds distances [s*block, (s+1)*block).
/// anchored_far = true gives the released bins of FlexPrefill and SharePrefill, which count from the largest
/// distance: with m = N mod block > 0, bin 0 holds only the m smallest distances and bin s > 0 holds
/// [m + (s-1)*block, m + s*block).
at::Tensor distance_bins(const at::Tensor& slash, int block, bool anchored_far);

/// How many of the largest entries of each row reach `mass`: int64 [H], between 1 and N.
/// extra_at_tie = true is the released rule, 1 + #{prefix sums <= mass}, which takes one entry more when a
/// prefix equals `mass` exactly. mass >= 1 means all N (float32 prefix sums may fall short of 1 or reach it
/// early).
at::Tensor count_for_mass(const at::Tensor& x, double mass, bool extra_at_tie);

/// The counts[h] largest entries (int64 [H]) of each row of scores [H,M], which are not negative, as a
/// boolean mask [H,M]; the first `forced` come before all, ties go to the smaller index. On the device of its
/// arguments.
at::Tensor top_counts(const at::Tensor& scores, const at::Tensor& counts, int64_t forced = 0);

/// Square root of the Jensen-Shannon divergence of the rows of p and q (natural log, so at most sqrt(ln 2)):
/// [H]. zeros_are_nan = true is the released arithmetic, where 0*log(0) makes the distance NaN, which
/// compares as "not below any threshold".
at::Tensor sqrt_js(const at::Tensor& p, const at::Tensor& q, bool zeros_are_nan);

}  // namespace prefill
