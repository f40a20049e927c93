// From ATen tensors and plans to the plain views of kernels/api.h. Shared by the adapters of every device.
#pragma once
#include <string>
#include <vector>

#include "core/backend.h"
#include "kernels/api.h"

namespace prefill::adapters {

/// "" when q, k, v are what Qkv promises and all on this kind of device; else what is wrong.
std::string wrong_with(const Qkv&, at::DeviceType);
/// "" when the plan's tensors have the shapes and types of core/plan.h for this many heads and tokens and lie on
/// the device of q; else what is wrong. Looks at shapes only, not at contents.
std::string wrong_with(const AttentionPlan&, const Qkv&);

kernels::QkvView view(const Qkv&);

/// A PlanView and what it points into; the plan must outlive it.
struct PlanArgs {
  PlanArgs(const AttentionPlan&, const Qkv&);
  PlanArgs(const PlanArgs&) = delete;
  kernels::PlanView view{};

 private:
  std::vector<kernels::RouteView> heads_;
  std::vector<kernels::WindowView> windows_;
  std::vector<at::Tensor> kept_;  // contiguous copies, where one was needed
};

/// Result tensors and the OutView that points into them. `out` has storage [N,Hq,D], so that the model sees a
/// contiguous [N, Hq*D].
struct Outputs {
  enum Want { result, state };
  Outputs(const Qkv&, const AttentionPlan&, AttendOptions, Want);
  AttendResult tensors;
  PartialSoftmax softmax;
  kernels::OutView view{};
};

/// Throws what the status stands for; `who` names the backend.
void raise_on(const kernels::Result&, const std::string& who);

}  // namespace prefill::adapters
