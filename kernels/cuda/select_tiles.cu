// The best tiles of every row, by count or by share of the row's mass, without sorting: the threshold is found by
// bisection over the bit patterns of the scores, ties are given to the smaller column.
#include <cuda_runtime.h>

#include "kernels/selection.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kTries = 3;  ///< thresholds per pass: two bits of the pattern
constexpr int kMostCols = 16384;
constexpr uint32_t kForced = 0xffffffffu;  ///< above every score; 0, below every score, is no candidate

/// Unsigned integers that order as the floats do, from 1 on.
__device__ __forceinline__ uint32_t order_of(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? max(1u, ~bits) : bits | 0x80000000u;
}

/// Sums over the block; every thread gets them. Fixed order: the same bits every time.
template <int N>
__device__ __forceinline__ void block_sum(double (&x)[N], double (*shared)[kWarps]) {
#pragma unroll
  for (int t = 0; t < N; ++t) {
    for (int o = 16; o; o >>= 1) x[t] += __shfl_xor_sync(0xffffffffu, x[t], o);
    if (threadIdx.x % 32 == 0) shared[t][threadIdx.x / 32] = x[t];
  }
  __syncthreads();
#pragma unroll
  for (int t = 0; t < N; ++t) {
    x[t] = 0;
    for (int w = 0; w < kWarps; ++w) x[t] += shared[t][w];
  }
  __syncthreads();
}

/// One block per row. A candidate weighs its score (mass) or 1 (count).
__global__ void __launch_bounds__(kThreads) select_tiles_kernel(const __grid_constant__ SelectArgs a) {
  extern __shared__ uint32_t keys[];  // [cols]
  __shared__ double shared[kTries][kWarps];
  __shared__ int ties[kWarps];
  const int64_t row = blockIdx.x, head = blockIdx.y;
  const float* scores = a.scores + (head * a.rows + row) * a.cols;
  const uint8_t* candidates = a.candidates + (a.candidate_heads > 1 ? head * a.rows + row : row) * a.cols;
  const uint8_t* forced = a.forced ? a.forced + (a.forced_heads > 1 ? head * a.rows + row : row) * a.cols : nullptr;
  uint8_t* out = a.mask + (head * a.rows + row) * a.cols;
  const bool by_mass = a.shares != nullptr;
  auto weight = [&](int c) { return by_mass ? double(scores[c]) : 1.0; };

  double sums[3] = {0, 0, 0};  // of all candidates, of the forced ones
  for (int c = threadIdx.x; c < a.cols; c += kThreads) {
    uint32_t key = 0;
    if (candidates[c]) {
      key = forced && forced[c] ? kForced : min(order_of(scores[c]), kForced - 1);
      sums[0] += weight(c);
      if (key == kForced) sums[1] += weight(c);
    }
    keys[c] = key;
  }
  block_sum(sums, shared);  // makes keys visible, too
  const double share = by_mass ? a.shares[a.share_heads > 1 ? head : 0] : 0;
  const double target = by_mass ? (isinf(share) ? share : share * sums[0])
                                : double(a.counts[a.count_head_stride * head + a.count_row_stride * row]);
  const double missing = target - sums[1];
  uint32_t pattern = kForced;  // candidates above it are kept, some of those equal to it
  double more = 0;             // so many of the equal ones, the smaller columns first
  if (missing >= sums[0] - sums[1] && (!by_mass || isinf(share))) {
    pattern = 0;  // all of them
  } else if (missing > 0) {
    pattern = 0;
    for (int bit = 31; bit > 0; bit -= 2) {
      double sum[kTries] = {};
      for (int c = threadIdx.x; c < a.cols; c += kThreads) {
        const uint32_t key = keys[c];
        if (key == kForced || key == 0) continue;
        const double w = weight(c);
#pragma unroll
        for (int t = 0; t < kTries; ++t)
          if (key >= (pattern | uint32_t(t + 1) << (bit - 1))) sum[t] += w;
      }
      block_sum(sum, shared);
      uint32_t most = 0;
#pragma unroll
      for (int t = 0; t < kTries; ++t)
        if (sum[t] >= missing) most = t + 1;
      pattern |= most << (bit - 1);
    }
    double rest[2] = {0, 0};  // weight above the pattern, weight of one that equals it (times their number)
    double equal[1] = {0};
    for (int c = threadIdx.x; c < a.cols; c += kThreads) {
      if (keys[c] != kForced && keys[c] > pattern) rest[0] += weight(c);
      if (keys[c] == pattern && pattern) rest[1] += weight(c), equal[0] += 1;
    }
    block_sum(rest, shared);
    block_sum(equal, shared);
    const double one = equal[0] > 0 ? rest[1] / equal[0] : 0;
    more = one > 0 ? ceil((missing - rest[0]) / one) : equal[0];
  }
  int before = 0;
  for (int start = 0; start < a.cols; start += kThreads) {
    const int c = start + int(threadIdx.x), warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    const uint32_t key = c < a.cols ? keys[c] : 0;
    const bool tie = key == pattern && key != 0 && key != kForced;
    const uint32_t vote = __ballot_sync(0xffffffffu, tie);
    if (lane == 0) ties[warp] = __popc(vote);
    __syncthreads();
    int rank = before + __popc(vote & ((1u << lane) - 1));
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) rank += ties[w];
      before += ties[w];
    }
    if (c < a.cols) out[c] = key == kForced || (key > pattern && key != 0) || (tie && double(rank) < more);
    __syncthreads();
  }
}

}  // namespace
}  // namespace cuda

Result select_tiles_cuda(const SelectArgs& a, void* stream) {
  if (a.cols > cuda::kMostCols) return {Status::unsupported, "select_tiles: more than 16384 columns"};
  if (a.heads < 1 || a.heads > 65535 || a.rows < 1 || a.cols < 1) return {Status::bad_argument, "select_tiles: empty"};
  const size_t bytes = size_t(a.cols) * sizeof(uint32_t);
  if (auto rc = cudaFuncSetAttribute(cuda::select_tiles_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
      rc != cudaSuccess)
    return {Status::device_error, cudaGetErrorString(rc)};
  cuda::select_tiles_kernel<<<dim3(unsigned(a.rows), unsigned(a.heads)), cuda::kThreads, bytes,
                              static_cast<cudaStream_t>(stream)>>>(a);
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace prefill::kernels
