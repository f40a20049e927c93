#pragma once
#include <cuda.h>

#include "kernels/api.h"

namespace prefill::kernels::cuda {

/// Tensor map of a [heads, rows, head_dim] view with boxes of box_rows x 64 elements in the 128-byte swizzle.
/// Base and strides must be multiples of 16 bytes.
Result make_tensor_map(CUtensorMap& map, const void* base, Dtype dtype, int head_dim, int64_t rows, int64_t heads,
                       int64_t row_stride, int64_t head_stride, int box_rows);

/// The same of a [heads, groups, group, head_dim] view, `group` tokens row_stride apart: boxes of box_groups
/// x 64 elements, one token of each group.
Result make_group_map(CUtensorMap& map, const void* base, Dtype dtype, int head_dim, int group,
                      int64_t groups, int64_t heads, int64_t row_stride, int64_t head_stride, int box_groups);

}  // namespace prefill::kernels::cuda
