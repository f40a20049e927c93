// Causal softmax of strided scores summed to blocks (XAttention, UniSparse) in one pass over the scores: probabilities
// never reach memory.
#include <cuda_runtime.h>

#include "kernels/cuda/primitives.cuh"
#include "kernels/selection.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kUnroll = 4, kChunk = 128 * kUnroll;  ///< columns of a warp's step
constexpr size_t kMostShared = 220 * 1024;

size_t shared_bytes(int64_t cols, int block) {
  return sizeof(float) * size_t(block) * size_t(cols / block + (cols + kChunk - 1) / kChunk);
}

/// One thread block per (row of blocks, head), a warp per row of scores. Sums are relative to the maximum of their chunk of
/// columns until the row's own is known.
__global__ void __launch_bounds__(kThreads, 2) softmax_block_sums_kernel(const __grid_constant__ BlockSumArgs p) {
  extern __shared__ __align__(16) float shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int block_row = int(gridDim.x - 1 - blockIdx.x);  // the longest first
  const int blocks = int(p.cols / p.block), chunks = int((p.cols + kChunk - 1) / kChunk), group = p.block / 4;
  float *const sums = shared, *const factors = shared + p.block * blocks;  // [block][blocks], [block][chunks]
  for (int r = warp; r < p.block; r += kWarps) {
    const int64_t row = int64_t(block_row) * p.block + r, position = p.first_row + row;
    const float* scores = p.scores + (blockIdx.y * p.rows + row) * p.cols;
    const int visible = position < p.real_rows ? int(min(position + 1, p.cols)) : 0;
    float *const row_sums = sums + r * blocks, *const row_factors = factors + r * chunks;
    float top = -INFINITY;
    for (int c = 0; c < chunks; ++c) {
      float v[kUnroll][4], high = -INFINITY;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int column = c * kChunk + u * 128 + lane * 4;
        float4 x = make_float4(0, 0, 0, 0);
        if (column < visible) x = __ldcs(reinterpret_cast<const float4*>(scores + column));
        const float raw[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          v[u][i] = column + i < visible ? raw[i] * p.scale : -INFINITY;
          high = fmaxf(high, v[u][i]);
        }
      }
#pragma unroll
      for (int o = 16; o; o >>= 1) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, o));
      const float base = high == -INFINITY ? 0.f : high;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int column = c * kChunk + u * 128 + lane * 4;
        float sum = exp2_fast(v[u][0] - base) + exp2_fast(v[u][1] - base) + exp2_fast(v[u][2] - base) + exp2_fast(v[u][3] - base);
        for (int o = 1; o < group; o <<= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
        if (lane % group == 0 && column < p.cols) row_sums[column / p.block] = sum;
      }
      if (lane == 0) row_factors[c] = high;
      top = fmaxf(top, high);
    }
    __syncwarp();
    float total = 0.f;
    for (int b = lane; b < blocks; b += 32) {
      const float high = row_factors[b * p.block / kChunk];
      if (high > -INFINITY) total += row_sums[b] * exp2_fast(high - top);
    }
#pragma unroll
    for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);
    __syncwarp();
    for (int c = lane; c < chunks; c += 32) row_factors[c] = row_factors[c] > -INFINITY ? exp2_fast(row_factors[c] - top) / total : 0.f;
  }
  __syncthreads();
  float* out = p.mass + blockIdx.y * p.head_stride + block_row * p.row_stride;
  for (int b = threadIdx.x; b < blocks; b += kThreads) {
    float total = 0.f;
    for (int r = 0; r < p.block; ++r) total += sums[r * blocks + b] * factors[r * chunks + b * p.block / kChunk];
    out[b] = total;
  }
}

}  // namespace
}  // namespace cuda

Result softmax_block_sums_cuda(const BlockSumArgs& p, void* stream) {
  const size_t bytes = cuda::shared_bytes(p.cols, p.block);
  if (p.block < 4 || p.block > 128 || (p.block & (p.block - 1)) || p.rows % p.block || p.cols % p.block || p.heads > 65535 ||
      reinterpret_cast<uintptr_t>(p.scores) % 16 || bytes > cuda::kMostShared)
    return {Status::unsupported, "softmax_block_sums: blocks of 4 to 128 scores, a power of two, whole blocks"};
  if (const auto rc = cudaFuncSetAttribute(cuda::softmax_block_sums_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
      rc != cudaSuccess)
    return {Status::device_error, cudaGetErrorString(rc)};
  BlockSumArgs args = p;
  args.scale *= 1.4426950408889634f;  // exponentials are of base two
  cuda::softmax_block_sums_kernel<<<dim3(unsigned(p.rows / p.block), unsigned(p.heads)), cuda::kThreads, bytes,
                                    static_cast<cudaStream_t>(stream)>>>(args);
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace prefill::kernels
