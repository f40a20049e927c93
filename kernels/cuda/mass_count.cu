// How many of a row's largest entries reach a share of its sum, without sorting the row: the threshold is found by
// bisection over the bit patterns of non-negative floats, which order as the floats do.
#include <cuda_runtime.h>

#include "kernels/selection.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kThreads = 1024, kTries = 3;  ///< thresholds per pass: two bits of the pattern (the sign is never set)

/// Sums over the block of kTries floats; every thread gets them. Fixed order: the same bits every time.
__device__ __forceinline__ void block_sum(float (&x)[kTries], float (&shared)[kTries][32]) {
#pragma unroll
  for (int t = 0; t < kTries; ++t) {
    for (int o = 16; o; o >>= 1) x[t] += __shfl_xor_sync(0xffffffffu, x[t], o);
    if (threadIdx.x % 32 == 0) shared[t][threadIdx.x / 32] = x[t];
  }
  __syncthreads();
#pragma unroll
  for (int t = 0; t < kTries; ++t) {
    x[t] = shared[t][threadIdx.x % 32];
    for (int o = 16; o; o >>= 1) x[t] += __shfl_xor_sync(0xffffffffu, x[t], o);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) mass_count_kernel(const float* x, int64_t n, float mass, int64_t* counts) {
  __shared__ float shared[kTries][32];
  const float* row = x + blockIdx.x * n;
  uint32_t pattern = 0;  // the largest t found so far with sum of x >= t at least mass (0: everything)
  for (int bit = 31; bit > 0; bit -= 2) {
    float sum[kTries] = {};
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      const float v = row[i];
      const uint32_t bits = __float_as_uint(v);
#pragma unroll
      for (int t = 0; t < kTries; ++t)
        if (bits >= (pattern | uint32_t(t + 1) << (bit - 1))) sum[t] += v;
    }
    block_sum(sum, shared);
    uint32_t most = 0;
#pragma unroll
    for (int t = 0; t < kTries; ++t)
      if (sum[t] >= mass) most = t + 1;
    pattern |= most << (bit - 1);
  }
  float above[kTries] = {};  // of x > pattern: sum, and number in two exact parts
  int count = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads)
    if (__float_as_uint(row[i]) > pattern) above[0] += row[i], ++count;
  above[1] = float(count & 0xfff), above[2] = float(count >> 12);
  block_sum(above, shared);
  if (threadIdx.x) return;
  const float least = __uint_as_float(pattern);
  const int64_t larger = int64_t(above[1]) + (int64_t(above[2]) << 12);
  const float missing = mass - above[0];
  const int64_t more = missing <= 0 ? 0 : least > 0 ? int64_t(ceilf(fminf(missing / least, 2e9f))) : n;
  counts[blockIdx.x] = max(int64_t(1), min(n, larger + more));
}

}  // namespace
}  // namespace cuda

Result mass_count_cuda(const float* x, int64_t rows, int64_t n, float mass, int64_t* counts, void* stream) {
  if (rows < 1 || n < 1 || n > (int64_t(1) << 32)) return {Status::bad_argument, "mass_count: empty, or too long rows"};
  cuda::mass_count_kernel<<<unsigned(rows), cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(x, n, mass, counts);
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace prefill::kernels
