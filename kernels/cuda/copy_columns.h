#pragma once
#include <cuda_runtime.h>

#include "kernels/cuda/attend_params.h"

namespace prefill::kernels::cuda {

/// Copies the columns of `groups` groups of rows from p.first_group on to k and v, [units][capacity][head_dim]: a unit's
/// lists one after the other with kColumnBox rows between them, of which those that a stage may read become zeros.
cudaError_t copy_columns(const AttendParams& p, int units, int groups, int64_t capacity, void* k, void* v, cudaStream_t);

}  // namespace prefill::kernels::cuda
