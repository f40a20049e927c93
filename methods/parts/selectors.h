// From tile scores to tile sets. Scores are [heads, rows, cols] floating point, candidates and forced sets
// are bool tensors that broadcast to them, results are bool [heads, rows, cols]. Pure ATen: any device, no
// host sync. Equal scores are broken towards the smaller column, so a selection is a function of its input.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace prefill {

/// The k best of each row. Forced tiles come first and spend budget; with fewer candidates than k, all.
at::Tensor select_top_k(const at::Tensor& scores, int64_t k, const at::Tensor& candidates,
                        const at::Tensor& forced = {});

/// The same with a budget per row: counts is an integer tensor that broadcasts to [heads, rows, 1].
at::Tensor select_top_count(const at::Tensor& scores, const at::Tensor& counts, const at::Tensor& candidates,
                            const at::Tensor& forced = {});

struct TopP {
  /// The tile whose addition reaches the target is kept (FlexPrefill, XAttention, Prism) or dropped
  /// (SpargeAttn).
  bool include_crossing = true;
  /// The running sum starts with the mass of the forced tiles (XAttention) instead of ignoring them (Prism).
  bool forced_head_start = true;
};

/// Tiles in falling order of score (which must not be negative) until their sum reaches p times the sum over
/// the row's candidates; sums in float64. p holds one target per head, or a single one for all. A target of 1
/// or more keeps every candidate, also those whose score is 0: "all of the mass" can not depend on rounding.
at::Tensor select_top_p(const at::Tensor& scores, const std::vector<double>& p, const at::Tensor& candidates,
                        const at::Tensor& forced = {}, TopP how = {});

/// The same over all rows of a head together: which tiles of the whole map carry p of its mass.
at::Tensor select_top_p_global(const at::Tensor& scores, double p, const at::Tensor& candidates,
                               bool include_crossing);

/// Scores of at least alpha times the row's largest candidate (FlashPrefill). Scores must not be negative.
at::Tensor select_max_ratio(const at::Tensor& scores, double alpha, const at::Tensor& candidates,
                            const at::Tensor& forced = {});

/// Scores above the threshold.
at::Tensor select_above(const at::Tensor& scores, double threshold, const at::Tensor& candidates,
                        const at::Tensor& forced = {});

}  // namespace prefill
