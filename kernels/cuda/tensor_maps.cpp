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

}  // namespace

Result make_tensor_map(CUtensorMap& map, const void* base, Dtype dtype, int head_dim, int64_t rows, int64_t heads,
                       int64_t row_stride, int64_t head_stride, int box_rows) {
  const Encode encode = encoder();
  if (!encode) return {Status::unsupported, "the driver has no cuTensorMapEncodeTiled"};
  if (reinterpret_cast<uintptr_t>(base) % 16 || row_stride % 8 || head_stride % 8)
    return {Status::bad_argument, "tensor base and strides must be multiples of 16 bytes"};
  const cuuint64_t sizes[3] = {cuuint64_t(head_dim), cuuint64_t(rows), cuuint64_t(heads)};
  // a dimension of extent 1 may carry any stride, but the driver wants a positive one
  const cuuint64_t strides[2] = {cuuint64_t(std::max<int64_t>(row_stride, 8)) * 2,
                                 cuuint64_t(std::max<int64_t>(head_stride, 8)) * 2};
  const cuuint32_t box[3] = {64, cuuint32_t(box_rows), 1}, steps[3] = {1, 1, 1};
  const auto type = dtype == Dtype::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const CUresult rc = encode(&map, type, 3, const_cast<void*>(base), sizes, strides, box, steps,
                             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (rc != CUDA_SUCCESS) return {Status::bad_argument, "the driver refused a tensor map"};
  return {};
}

}  // namespace prefill::kernels::cuda
