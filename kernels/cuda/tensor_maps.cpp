#include "kernels/cuda/tensor_maps.h"

#include <cuda_runtime.h>

#include <algorithm>

namespace prefill::kernels::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

/// From the driver, through the runtime, so that nothing links against libcuda.
Encode encoder() {
  static const Encode found = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult result{};
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &result) !=
            cudaSuccess ||
        result != cudaDriverEntryPointSuccess)
      symbol = nullptr;
    return reinterpret_cast<Encode>(symbol);
  }();
  return found;
}

/// `rank` dimensions; strides in elements, of all but the first.
Result encode_map(CUtensorMap& map, const void* base, Dtype dtype, int rank, const cuuint64_t* sizes,
                  const int64_t* strides, const cuuint32_t* box) {
  const Encode encode = encoder();
  if (!encode) return {Status::unsupported, "the driver has no cuTensorMapEncodeTiled"};
  cuuint64_t bytes[4] = {};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  for (int i = 0; i + 1 < rank; ++i) {
    if (strides[i] % 8) return {Status::bad_argument, "tensor strides must be multiples of 16 bytes"};
    // a dimension of extent 1 may carry any stride, but the driver wants a positive one
    bytes[i] = cuuint64_t(std::max<int64_t>(strides[i], 8)) * 2;
  }
  if (reinterpret_cast<uintptr_t>(base) % 16)
    return {Status::bad_argument, "tensor base must be a multiple of 16 bytes"};
  const auto type = dtype == Dtype::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const CUresult rc = encode(&map, type, cuuint32_t(rank), const_cast<void*>(base), sizes, bytes, box, steps,
                             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (rc != CUDA_SUCCESS) return {Status::bad_argument, "the driver refused a tensor map"};
  return {};
}

}  // namespace

Result make_tensor_map(CUtensorMap& map, const void* base, Dtype dtype, int head_dim, int64_t rows,
                       int64_t heads, int64_t row_stride, int64_t head_stride, int box_rows) {
  const cuuint64_t sizes[3] = {cuuint64_t(head_dim), cuuint64_t(rows), cuuint64_t(heads)};
  const int64_t strides[2] = {row_stride, head_stride};
  const cuuint32_t box[3] = {64, cuuint32_t(box_rows), 1};
  return encode_map(map, base, dtype, 3, sizes, strides, box);
}

Result make_group_map(CUtensorMap& map, const void* base, Dtype dtype, int head_dim, int group,
                      int64_t groups, int64_t heads, int64_t row_stride, int64_t head_stride,
                      int box_groups) {
  const cuuint64_t sizes[4] = {cuuint64_t(head_dim), cuuint64_t(group), cuuint64_t(groups),
                               cuuint64_t(heads)};
  const int64_t strides[3] = {row_stride, group * row_stride, head_stride};
  const cuuint32_t box[4] = {64, 1, cuuint32_t(box_groups), 1};
  return encode_map(map, base, dtype, 4, sizes, strides, box);
}

}  // namespace prefill::kernels::cuda
