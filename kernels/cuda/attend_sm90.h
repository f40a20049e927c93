// Entry points of the Hopper attention kernel, one object file per head dimension and dtype.
#pragma once
#include <cuda_runtime.h>

#include "kernels/cuda/attend_params.h"

namespace prefill::kernels::cuda {

cudaError_t attend_sm90_d128_bf16(const AttendParams&, int blocks, cudaStream_t);
cudaError_t attend_sm90_d128_f16(const AttendParams&, int blocks, cudaStream_t);
cudaError_t attend_sm90_d64_bf16(const AttendParams&, int blocks, cudaStream_t);
cudaError_t attend_sm90_d64_f16(const AttendParams&, int blocks, cudaStream_t);

}  // namespace prefill::kernels::cuda
