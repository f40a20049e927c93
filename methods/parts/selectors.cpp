#include "methods/parts/selectors.h"

#include <ATen/ATen.h>

#include "methods/parts/on_device.h"
#include "methods/parts/tile_grid.h"

#include "core/device_ops.h"

namespace prefill {
namespace {

at::Tensor with_forced(const at::Tensor& mask, const at::Tensor& candidates, const at::Tensor& forced) {
  return forced.defined() ? (mask | forced) & candidates : mask & candidates;
}

/// Columns in falling order of score: forced first, what is no candidate last.
at::Tensor order_of(const at::Tensor& scores, const at::Tensor& candidates, const at::Tensor& forced) {
  at::Tensor key = scores.masked_fill(candidates.logical_not(), -kInf);
  if (forced.defined()) key = key.masked_fill(forced & candidates, kInf);
  return std::get<1>(key.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true));
}

/// One target per head as [heads, 1, 1]; targets of 1 and more become infinite.
at::Tensor targets(const std::vector<double>& p, const at::Tensor& like) {
  std::vector<double> host(p);
  for (double& x : host)
    if (x >= 1) x = kInf;
  return on_device(host, like.device()).view({-1, 1, 1});
}

at::Tensor top_p(const at::Tensor& scores, const at::Tensor& p, const at::Tensor& candidates,
                 const at::Tensor& forced, TopP how) {
  if (scores.is_cuda() && cuda_ops().select_tiles && how.include_crossing && how.forced_head_start) {
    const at::Tensor mask = cuda_ops().select_tiles(scores, candidates, forced, p.contiguous(), {});
    if (mask.defined()) return mask;
  }
  at::Tensor mass = scores.to(at::kDouble).masked_fill(candidates.logical_not(), 0);
  at::Tensor order = order_of(scores, candidates, how.forced_head_start ? forced : at::Tensor());
  at::Tensor sorted = mass.gather(-1, order);
  at::Tensor upto = sorted.cumsum(-1);
  at::Tensor total = mass.sum(-1, /*keepdim=*/true);
  at::Tensor target =
      at::where(p.isinf(), p, p * total);  // inf * 0 is not wanted: a row without mass keeps all
  at::Tensor keep = how.include_crossing ? (upto - sorted) < target : upto <= target;
  return with_forced(at::zeros_like(keep).scatter(-1, order, keep), candidates, forced);
}

}  // namespace

at::Tensor select_top_k(const at::Tensor& scores, int64_t k, const at::Tensor& candidates,
                        const at::Tensor& forced) {
  return select_top_count(scores, at::full({1, 1, 1}, k, scores.options().dtype(at::kLong)), candidates,
                          forced);
}

at::Tensor select_top_count(const at::Tensor& scores, const at::Tensor& counts, const at::Tensor& candidates,
                            const at::Tensor& forced) {
  if (scores.is_cuda() && cuda_ops().select_tiles) {
    const at::Tensor mask = cuda_ops().select_tiles(scores, candidates, forced, {}, counts);
    if (mask.defined()) return mask;
  }
  at::Tensor order = order_of(scores, candidates, forced);
  at::Tensor first = (at::arange(scores.size(-1), order.options()) < counts).expand(order.sizes());
  at::Tensor picked = at::zeros(scores.sizes(), scores.options().dtype(at::kBool));
  return with_forced(picked.scatter(-1, order, first), candidates, forced);
}

at::Tensor select_top_p(const at::Tensor& scores, const std::vector<double>& p, const at::Tensor& candidates,
                        const at::Tensor& forced, TopP how) {
  return top_p(scores, targets(p, scores), candidates, forced, how);
}

at::Tensor select_top_p_global(const at::Tensor& scores, double p, const at::Tensor& candidates,
                               bool include_crossing) {
  const auto shape = scores.sizes();
  at::Tensor flat = scores.reshape({shape[0], 1, shape[1] * shape[2]});
  at::Tensor allowed = candidates.expand(shape).reshape(flat.sizes());
  return top_p(flat, targets({p}, scores), allowed, {}, {.include_crossing = include_crossing}).view(shape);
}

at::Tensor select_max_ratio(const at::Tensor& scores, double alpha, const at::Tensor& candidates,
                            const at::Tensor& forced) {
  at::Tensor best = scores.masked_fill(candidates.logical_not(), 0).amax(-1, /*keepdim=*/true);
  return with_forced(scores >= best * alpha, candidates, forced);
}

at::Tensor select_above(const at::Tensor& scores, double threshold, const at::Tensor& candidates,
                        const at::Tensor& forced) {
  return with_forced(scores > threshold, candidates, forced);
}

}  // namespace prefill
