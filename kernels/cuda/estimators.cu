// Estimators that selections start from: block means, and column and distance sums of the last queries' softmax. All
// heads in one launch, nothing synchronises, and no atomics: the same input gives the same bits.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/api.h"
#include "kernels/cuda/tile_mma.cuh"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kSpan = 16;  ///< batches of 64 keys that one block folds into a partial row maximum and sum
constexpr int kProbabilityBytes = 64 * 65 * sizeof(float);
constexpr float kLog2e = 1.4426950408889634f;

/// One block per (tile, head): mean of up to `tile` rows.
template <class T>
__global__ void pool_mean_kernel(const T* x, int64_t n, int dim, int64_t head_stride, int64_t row_stride, int tile, float* out) {
  const int64_t first = int64_t(blockIdx.x) * tile, count = min(int64_t(tile), n - first);
  const T* rows = x + blockIdx.y * head_stride + first * row_stride;
  for (int d = threadIdx.x; d < dim; d += blockDim.x) {
    float sum = 0.f;
    for (int64_t i = 0; i < count; ++i) sum += float(rows[i * row_stride + d]);
    out[(int64_t(blockIdx.y) * gridDim.x + blockIdx.x) * dim + d] = sum / float(count);
  }
}

struct TailParams {
  QkvView qkv;
  int64_t tail;
  int groups, spans;          ///< of 64 rows, of kSpan * 64 keys
  float *part_max, *part_sum; ///< [heads][spans][groups * 64]
  float* lse;                 ///< [heads][groups * 64], base 2
  float *vertical, *slash;    ///< [heads][n]
};

template <int D, class T>
__device__ __forceinline__ void load_rows(uint32_t tile, const T* base, int64_t first, int64_t begin, int64_t end, int64_t stride) {
  for (int i = threadIdx.x; i < 64 * D / 8; i += kMmaThreads) {
    const int row = i / (D / 8), column = i % (D / 8);
    const int64_t at = first + row;
    const bool real = at >= begin && at < end;
    copy_async_16(piece<D>(tile, row, column), base + (real ? at * stride : 0) + column * 8, real);
  }
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
}

/// Partial softmax statistics of 64 rows over kSpan batches of keys.
template <int D, class T>
__global__ void __launch_bounds__(kMmaThreads) tail_stats_kernel(const __grid_constant__ TailParams p) {
  __shared__ __align__(128) uint8_t q_bytes[64 * D * 2], k_bytes[64 * D * 2];
  const int span = blockIdx.x, group = blockIdx.y, head = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int64_t n = p.qkv.seq_len, first = n - p.tail + group * 64;
  const T* q_head = static_cast<const T*>(p.qkv.q) + head * p.qkv.q_head_stride;
  const T* k_head = static_cast<const T*>(p.qkv.k) + head / (p.qkv.q_heads / p.qkv.kv_heads) * p.qkv.k_head_stride;
  load_rows<D>(smem_address(q_bytes), q_head, first, 0, n, p.qkv.q_row_stride);
  uint32_t q[D / 16][4];
  load_queries<D>(q, smem_address(q_bytes), warp, lane);
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
  for (int b = 0; b < kSpan; ++b) {
    const int64_t start = (int64_t(span) * kSpan + b) * 64;
    if (start >= n) break;
    __syncthreads();
    load_rows<D>(smem_address(k_bytes), k_head, start, 0, n, p.qkv.k_row_stride);
    float s[32];
    multiply_keys<D, T>(s, q, smem_address(k_bytes), lane);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t position = first + warp * 16 + (lane >> 2) + 8 * r;
      float high = top[r];
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        if (((i >> 1) & 1) != r) continue;
        const int64_t key = start + 8 * (i / 4) + 2 * (lane & 3) + (i & 1);
        s[i] = key <= position ? s[i] * p.qkv.scale * kLog2e : -INFINITY;
        high = fmaxf(high, s[i]);
      }
      if (high == -INFINITY) continue;
      float total = 0.f;
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (((i >> 1) & 1) == r) total += exp2_fast(s[i] - high);
      sum[r] = sum[r] * exp2_fast(top[r] - high) + total;
      top[r] = high;
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    for (int o = 1; o < 4; o <<= 1) {
      const float other = __shfl_xor_sync(0xffffffffu, top[r], o), other_sum = __shfl_xor_sync(0xffffffffu, sum[r], o);
      const float high = fmaxf(top[r], other), base = high == -INFINITY ? 0.f : high;
      sum[r] = sum[r] * exp2_fast(top[r] - base) + other_sum * exp2_fast(other - base);
      top[r] = high;
    }
    if ((lane & 3) == 0) {
      const int64_t at = (int64_t(head) * p.spans + span) * p.groups * 64 + group * 64 + warp * 16 + (lane >> 2) + 8 * r;
      p.part_max[at] = top[r];
      p.part_sum[at] = sum[r];
    }
  }
}

__global__ void tail_lse_kernel(const __grid_constant__ TailParams p) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x, rows = p.groups * 64;
  if (row >= rows) return;
  float top = -INFINITY, sum = 0.f;
  for (int s = 0; s < p.spans; ++s) top = fmaxf(top, p.part_max[(int64_t(blockIdx.y) * p.spans + s) * rows + row]);
  for (int s = 0; s < p.spans; ++s) {
    const int64_t at = (int64_t(blockIdx.y) * p.spans + s) * rows + row;
    if (p.part_max[at] != -INFINITY) sum += p.part_sum[at] * exp2f(p.part_max[at] - top);
  }
  p.lse[blockIdx.y * int64_t(rows) + row] = top + log2f(sum);
}

/// One block per 64 keys and, at the same time, per 64 distances.
template <int D, class T>
__global__ void __launch_bounds__(kMmaThreads) tail_sums_kernel(const __grid_constant__ TailParams p) {
  __shared__ __align__(128) uint8_t q_bytes[64 * D * 2], k_bytes[64 * D * 2];
  extern __shared__ float probabilities_bytes[];  // [64][65]: with D 128 too much for static shared memory
  auto* probabilities = reinterpret_cast<float(*)[65]>(probabilities_bytes);
  const int chunk = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int64_t n = p.qkv.seq_len;
  const T* q_head = static_cast<const T*>(p.qkv.q) + head * p.qkv.q_head_stride;
  const T* k_head = static_cast<const T*>(p.qkv.k) + head / (p.qkv.q_heads / p.qkv.kv_heads) * p.qkv.k_head_stride;
  float column_sum = 0.f, distance_sum = 0.f;  // of thread t < 64: key, distance 64 chunk + t
  for (int group = 0; group < p.groups; ++group) {
    const int64_t first = n - p.tail + group * 64;
    __syncthreads();
    load_rows<D>(smem_address(q_bytes), q_head, first, 0, n, p.qkv.q_row_stride);
    uint32_t q[D / 16][4];
    load_queries<D>(q, smem_address(q_bytes), warp, lane);
    float lse[2];
    for (int r = 0; r < 2; ++r)
      lse[r] = p.lse[(int64_t(head) * p.groups + group) * 64 + warp * 16 + (lane >> 2) + 8 * r];
    const int64_t band = first - 64 * int64_t(chunk) - 63;  // first key of the band of distances
    for (int part = 0; part < 3; ++part) {                 // 0: the keys; 1, 2: the two halves of the band
      const int64_t start = part == 0 ? 64 * int64_t(chunk) : band + 64 * (part - 1);
      if (start + 63 < 0 || start >= n) continue;
      __syncthreads();
      load_rows<D>(smem_address(k_bytes), k_head, start, 0, n, p.qkv.k_row_stride);
      float s[32];
      multiply_keys<D, T>(s, q, smem_address(k_bytes), lane);
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = (i >> 1) & 1, row = warp * 16 + (lane >> 2) + 8 * r, column = 8 * (i / 4) + 2 * (lane & 3) + (i & 1);
        const int64_t key = start + column, position = first + row;
        const bool visible = key >= 0 && key <= position && position < n;
        probabilities[row][column] = visible ? exp2_fast(s[i] * p.qkv.scale * kLog2e - lse[r]) : 0.f;
      }
      __syncthreads();
      if (threadIdx.x < 64) {
        const int t = threadIdx.x;
        if (part == 0) {
          for (int row = 0; row < 64; ++row) column_sum += probabilities[row][t];
        } else {
          for (int row = 0; row < 64; ++row) {
            const int at = row - t + 63 - 64 * (part - 1);  // key of this row at distance 64 chunk + t
            if (at >= 0 && at < 64) distance_sum += probabilities[row][at];
          }
        }
      }
    }
  }
  const int64_t at = 64 * int64_t(chunk) + threadIdx.x;
  if (threadIdx.x < 64 && at < n) {
    p.vertical[head * n + at] = column_sum;
    p.slash[head * n + at] = distance_sum;
  }
}

TailParams tail_params(const QkvView& qkv, int64_t tail, void* workspace) {
  TailParams p{};
  p.qkv = qkv;
  p.tail = std::min(tail, qkv.seq_len);
  p.groups = int((p.tail + 63) / 64);
  p.spans = int((qkv.seq_len + kSpan * 64 - 1) / (kSpan * 64));
  const int64_t part = int64_t(qkv.q_heads) * p.spans * p.groups * 64;
  p.part_max = static_cast<float*>(workspace);
  p.part_sum = p.part_max + part;
  p.lse = p.part_sum + part;
  return p;
}

template <int D, class T>
void launch_tail(const TailParams& p, cudaStream_t stream) {
  const unsigned heads = p.qkv.q_heads, rows = p.groups * 64, chunks = unsigned((p.qkv.seq_len + 63) / 64);
  tail_stats_kernel<D, T><<<dim3(p.spans, p.groups, heads), kMmaThreads, 0, stream>>>(p);
  tail_lse_kernel<<<dim3((rows + 127) / 128, heads), 128, 0, stream>>>(p);
  cudaFuncSetAttribute(tail_sums_kernel<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kProbabilityBytes);
  tail_sums_kernel<D, T><<<dim3(chunks, heads), kMmaThreads, kProbabilityBytes, stream>>>(p);
}

Result launched() {
  const cudaError_t rc = cudaGetLastError();
  if (rc == cudaSuccess) return {};
  return {Status::device_error, cudaGetErrorString(rc)};
}

}  // namespace
}  // namespace cuda

Result pool_mean_cuda(const void* x, Dtype dtype, int heads, int64_t seq_len, int dim, int64_t head_stride,
                      int64_t row_stride, int tile, float* out, void* stream) {
  if (tile < 1 || heads < 1 || seq_len < 1 || dim < 1) return {Status::bad_argument, "pool_mean: empty"};
  const dim3 grid(unsigned((seq_len + tile - 1) / tile), heads);
  const int threads = std::min(256, (dim + 31) / 32 * 32);
  const auto s = static_cast<cudaStream_t>(stream);
  switch (dtype) {
    case Dtype::f32:
      cuda::pool_mean_kernel<<<grid, threads, 0, s>>>(static_cast<const float*>(x), seq_len, dim, head_stride, row_stride, tile, out);
      break;
    case Dtype::bf16:
      cuda::pool_mean_kernel<<<grid, threads, 0, s>>>(static_cast<const __nv_bfloat16*>(x), seq_len, dim, head_stride, row_stride, tile, out);
      break;
    case Dtype::f16:
      cuda::pool_mean_kernel<<<grid, threads, 0, s>>>(static_cast<const __half*>(x), seq_len, dim, head_stride, row_stride, tile, out);
      break;
  }
  return cuda::launched();
}

size_t tail_sums_cuda_workspace(const QkvView& qkv, int64_t tail) {
  const cuda::TailParams p = cuda::tail_params(qkv, tail, nullptr);
  return size_t(qkv.q_heads) * (2 * size_t(p.spans) + 1) * size_t(p.groups) * 64 * sizeof(float);
}

Result tail_sums_cuda(const QkvView& qkv, int64_t tail, float* vertical, float* slash, void* workspace, void* stream) {
  if (tail < 1) return {Status::bad_argument, "tail_sums: at least one query is needed"};
  if ((qkv.dtype != Dtype::bf16 && qkv.dtype != Dtype::f16) || (qkv.head_dim != 64 && qkv.head_dim != 128))
    return {Status::unsupported, "tail_sums: bfloat16 or float16, head_dim 64 or 128"};
  if (reinterpret_cast<uintptr_t>(qkv.q) % 16 || reinterpret_cast<uintptr_t>(qkv.k) % 16 || qkv.q_row_stride % 8 ||
      qkv.k_row_stride % 8 || qkv.q_head_stride % 8 || qkv.k_head_stride % 8)
    return {Status::unsupported, "tail_sums: tensors must start and step by multiples of 16 bytes"};
  cuda::TailParams p = cuda::tail_params(qkv, tail, workspace);
  p.vertical = vertical, p.slash = slash;
  const auto s = static_cast<cudaStream_t>(stream);
  if (qkv.dtype == Dtype::f16)
    qkv.head_dim == 64 ? cuda::launch_tail<64, __half>(p, s) : cuda::launch_tail<128, __half>(p, s);
  else
    qkv.head_dim == 64 ? cuda::launch_tail<64, __nv_bfloat16>(p, s) : cuda::launch_tail<128, __nv_bfloat16>(p, s);
  return cuda::launched();
}

}  // namespace prefill::kernels
