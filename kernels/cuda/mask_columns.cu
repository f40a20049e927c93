// From boolean masks to lists: the columns of the true cells of every row, at places that the caller has counted.
#include <cuda_runtime.h>

#include "kernels/selection.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kThreads = 256, kPer = 16;  ///< cells a thread looks at in one step: one 16-byte load

/// One block per row. Cells are 0 or 1.
__global__ void __launch_bounds__(kThreads)
    mask_columns_kernel(const uint8_t* mask, int64_t cols, const int32_t* ptr, int64_t ptr_stride, const int32_t* values,
                        int32_t* idx, int64_t idx_stride) {
  __shared__ int warp_total[kThreads / 32];
  const int64_t pattern = blockIdx.y, row = blockIdx.x;
  const int32_t begin = ptr[pattern * ptr_stride + row];
  if (ptr[pattern * ptr_stride + row + 1] == begin) return;
  const uint8_t* cells = mask + (pattern * gridDim.x + row) * cols;
  int32_t* out = idx + pattern * idx_stride + begin;
  if (values) values += pattern * cols;
  const bool aligned = reinterpret_cast<uintptr_t>(cells) % kPer == 0;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  int before = 0;  // true cells of earlier steps
  for (int64_t start = 0; start < cols; start += kThreads * kPer) {
    const int64_t at = start + threadIdx.x * kPer;
    uint32_t word[4] = {0, 0, 0, 0};
    if (aligned && at + kPer <= cols) {
      const uint4 v = *reinterpret_cast<const uint4*>(cells + at);
      word[0] = v.x, word[1] = v.y, word[2] = v.z, word[3] = v.w;
    } else {
#pragma unroll
      for (int i = 0; i < kPer; ++i)
        if (at + i < cols && cells[at + i]) word[i / 4] |= 1u << (8 * (i % 4));
    }
    const int mine = __popc(word[0]) + __popc(word[1]) + __popc(word[2]) + __popc(word[3]);
    int upto = mine;
    for (int o = 1; o < 32; o <<= 1) {
      const int other = __shfl_up_sync(0xffffffffu, upto, o);
      if (lane >= o) upto += other;
    }
    if (lane == 31) warp_total[warp] = upto;
    __syncthreads();
    int place = before + upto - mine, all = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) place += warp_total[w];
      all += warp_total[w];
    }
    if (mine)
#pragma unroll
      for (int i = 0; i < kPer; ++i)
        if (word[i / 4] >> (8 * (i % 4)) & 1) out[place++] = values ? values[at + i] : int32_t(at + i);
    before += all;
    __syncthreads();
  }
}

}  // namespace
}  // namespace cuda

Result mask_columns_cuda(const uint8_t* mask, int patterns, int64_t rows, int64_t cols, const int32_t* ptr,
                         int64_t ptr_stride, const int32_t* values, int32_t* idx, int64_t idx_stride, void* stream) {
  if (patterns < 1 || patterns > 65535 || rows < 1 || rows > INT32_MAX || cols < 1 || cols > INT32_MAX)
    return {Status::bad_argument, "mask_columns: empty, or too many patterns, rows or columns"};
  cuda::mask_columns_kernel<<<dim3(unsigned(rows), unsigned(patterns)), cuda::kThreads, 0,
                              static_cast<cudaStream_t>(stream)>>>(mask, cols, ptr, ptr_stride, values, idx, idx_stride);
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace prefill::kernels
