#pragma once
#include <cuda.h>

#include "kernels/api.h"

namespace prefill::kernels::cuda {

/// Tensor map of a [heads, rows, head_dim] view with boxes of box_rows x 64 elements in the 128-byte swizzle.
/// Base and strides must be multiples of 16 bytes.
Result make_tensor_map(CUtensorMap& map, const void* base, Dtype dtype, int head_dim, int64_t rows, int64_t heads,
                       int64_t row_stride, int64_t head_stride, int box_rows);

}  // namespace prefill::kernels::cuda
