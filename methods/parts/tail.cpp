#include "methods/parts/tail.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "core/device_ops.h"

namespace prefill {

TailStats tail_stats(const LayerContext& c, int64_t last_q) {
  const int64_t rows = std::min<int64_t>(last_q, c.seq_len);
  auto [vertical, slash] = c.backend.tail_sums(c.qkv, rows);
  return {vertical / double(rows), slash / double(rows), rows};
}

at::Tensor sum_bins(const at::Tensor& x, int block) {
  const int64_t n = x.size(1), bins = (n + block - 1) / block;
  return at::constant_pad_nd(x, {0, bins * block - n}).view({x.size(0), bins, block}).sum(-1);
}

at::Tensor distance_bins(const at::Tensor& slash, int block, bool anchored_far) {
  if (!anchored_far) return sum_bins(slash, block);
  return sum_bins(slash.flip(1), block).flip(1);
}

at::Tensor count_for_mass(const at::Tensor& x, double mass, bool extra_at_tie) {
  if (mass >= 1) return at::full({x.size(0)}, x.size(1), x.options().dtype(at::kLong));
  if (x.is_cuda() && cuda_ops().count_for_mass && !extra_at_tie) return cuda_ops().count_for_mass(x, mass);
  const at::Tensor prefix = std::get<0>(x.sort(-1, true)).cumsum(-1);
  const at::Tensor short_of_it = extra_at_tie ? prefix.le(mass) : prefix.lt(mass);
  return short_of_it.sum(-1).add(1).clamp_max(x.size(1));
}

at::Tensor top_counts(const at::Tensor& scores, const at::Tensor& counts, int64_t forced) {
  if (scores.is_cuda() && cuda_ops().top_counts)
    if (at::Tensor mask = cuda_ops().top_counts(scores, counts, forced); mask.defined()) return mask;
  at::Tensor first = scores;
  if (forced > 0) {
    first = scores.clone();
    first.narrow(1, 0, std::min(forced, scores.size(1))).fill_(std::numeric_limits<double>::infinity());
  }
  const at::Tensor order = std::get<1>(first.sort(/*stable=*/true, -1, /*descending=*/true));
  const at::Tensor rank = at::arange(scores.size(1), counts.options());
  return at::zeros(scores.sizes(), scores.options().dtype(at::kBool))
      .scatter(1, order, rank.lt(counts.unsqueeze(1)));
}

at::Tensor sqrt_js(const at::Tensor& p, const at::Tensor& q, bool zeros_are_nan) {
  const at::Tensor m = (p + q) / 2;
  if (zeros_are_nan) return at::sqrt(0.5 * (p * at::log(p / m)).sum(-1) + 0.5 * (q * at::log(q / m)).sum(-1));
  // xlogy(0, 0) is 0; the clamp keeps rounding below zero from becoming NaN.
  auto divergence = [&](const at::Tensor& a) { return (at::xlogy(a, a) - at::xlogy(a, m)).sum(-1); };
  return at::sqrt((0.5 * (divergence(p) + divergence(q))).clamp_min(0));
}

}  // namespace prefill
