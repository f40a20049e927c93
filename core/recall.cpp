#include "core/recall.h"

#include <ATen/ATen.h>

namespace prefill {

std::vector<double> mass_recall(const KernelBackend& backend, const Qkv& qkv, const AttentionPlan& plan) {
  AttendOptions options;
  options.lse = true;
  AttentionPlan keys_only = plan;
  keys_only.complement.reset();
  keys_only.want_tile_mean.clear();
  const at::Tensor kept = backend.attend(qkv, keys_only, options).lse;
  const at::Tensor all =
      backend.attend(qkv, AttentionPlan::uniform(qkv.q_heads(), {Route::dense, 0}), options).lse;
  const at::Tensor share =
      (kept.to(at::kDouble) - all.to(at::kDouble)).exp().mean(-1).to(at::kCPU).contiguous();
  return {share.data_ptr<double>(), share.data_ptr<double>() + share.numel()};
}

}  // namespace prefill
