// Small lists that a method hands to its device in the middle of a layer.
#pragma once
#include <ATen/ATen.h>

#include <vector>

namespace prefill {

/// `values` as a tensor on `device`. A GPU fetches them from pinned memory, so that the host does not wait
/// for the work that is queued there, as it does when it copies ordinary memory.
template <class T>
at::Tensor on_device(const std::vector<T>& values, at::Device device) {
  const at::Tensor host = at::tensor(values, c10::CppTypeToScalarType<T>::value);
  if (device.is_cpu() || values.empty()) return host.to(device);
  return host.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace prefill
