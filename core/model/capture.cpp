#include "core/model/capture.h"

#include <ATen/ATen.h>

namespace prefill {

at::Tensor CaptureHook::prefill(int layer, const Qkv& qkv) {
  if (layers_.count(layer)) {
    // the model reuses the storage behind q for its next layer
    const auto keep = [](const at::Tensor& t) { return t.to(at::kCPU).clone(at::MemoryFormat::Contiguous); };
    captured[layer] = {keep(qkv.q), keep(qkv.k), keep(qkv.v), qkv.scale};
  }
  return inner_.prefill(layer, qkv);
}

}  // namespace prefill
