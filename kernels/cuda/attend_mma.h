// Entry points of the mma.sync kernels (sm_80 and later).
#pragma once
#include <cuda_runtime.h>

#include "kernels/cuda/attend_params.h"

namespace prefill::kernels::cuda {

/// Heads whose tile means are wanted, in the order of the result.
struct HeadList {
  int count;
  int16_t head[kMaxUnits];
  RouteView route[kMaxUnits];
};

cudaError_t attend_mma(const AttendParams&, cudaStream_t);
/// Fills p.result.tile_mean from Q, K and p.result.lse.
cudaError_t tile_means(const AttendParams&, const HeadList& wanted, cudaStream_t);

}  // namespace prefill::kernels::cuda
