// What the adapters of CUDA kernels ask of a tensor and of a kernel's answer.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/adapters/views.h"

namespace prefill::adapters {

inline void* stream_of(const at::Tensor& t) { return c10::cuda::getCurrentCUDAStream(t.device().index()).stream(); }

inline bool half(at::ScalarType t) { return t == at::kBFloat16 || t == at::kHalf; }
inline bool half(const at::Tensor& t) { return half(t.scalar_type()); }
/// Of a type that half() is true of.
inline kernels::Dtype half_dtype(at::ScalarType t) { return t == at::kHalf ? kernels::Dtype::f16 : kernels::Dtype::bf16; }
inline kernels::Dtype half_dtype(const at::Tensor& t) { return half_dtype(t.scalar_type()); }

/// False: not a case of the kernel. Throws what any other failure stands for.
inline bool known(const kernels::Result& r) {
  if (r.status == kernels::Status::unsupported) return false;
  raise_on(r, "cuda");
  return true;
}

}  // namespace prefill::adapters
