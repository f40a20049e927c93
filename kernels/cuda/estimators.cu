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

constexpr int kSpan = 16;     ///< batches of 64 keys that one block folds into a partial row maximum and sum
constexpr int kTogether = 2;  ///< groups of 64 queries that read a batch of keys once for their statistics
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
  int chunks;                 ///< of 64 keys
  float *part_max, *part_sum; ///< [heads][spans][groups * 64]
  float* lse;                 ///< [heads][groups * 64], base 2
  /// [heads][chunks][(groups + 1) * 64]: sums of a chunk's keys by distance, from the first query - the chunk's last key on
  float* part_slash;
  float *vertical, *slash;    ///< [heads][n]
};

template <int D, class T>
__device__ __forceinline__ void load_rows(uint32_t tile, const T* base, int64_t first, int64_t end, int64_t stride) {
  for (int i = threadIdx.x; i < 64 * D / 8; i += kMmaThreads) {
    const int row = i / (D / 8), column = i % (D / 8);
    const bool real = first + row < end;
    copy_async_16(piece<D>(tile, row, column), base + (real ? (first + row) * stride : 0) + column * 8, real);
  }
  copy_async_commit();
}

/// Partial softmax statistics of kTogether groups of 64 rows over kSpan batches of keys.
template <int D, class T>
__global__ void __launch_bounds__(kMmaThreads, 3) tail_stats_kernel(const __grid_constant__ TailParams p) {
  __shared__ __align__(128) uint8_t bytes[kTogether][64 * D * 2];  // Q, then K in turn
  const int span = blockIdx.x, head = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int first_group = blockIdx.y * kTogether;
  const int64_t n = p.qkv.seq_len, begin = int64_t(span) * kSpan * 64;
  const T* q_head = static_cast<const T*>(p.qkv.q) + head * p.qkv.q_head_stride;
  const T* k_head = static_cast<const T*>(p.qkv.k) + head / (p.qkv.q_heads / p.qkv.kv_heads) * p.qkv.k_head_stride;
  uint32_t q[kTogether][D / 16][4];
#pragma unroll
  for (int g = 0; g < kTogether; ++g)  // a group past the last one is zeros
    load_rows<D>(smem_address(bytes[g]), q_head, n - p.tail + (first_group + g) * 64, n, p.qkv.q_row_stride);
  copy_async_wait<0>();
  __syncthreads();
#pragma unroll
  for (int g = 0; g < kTogether; ++g) load_queries<D>(q[g], smem_address(bytes[g]), warp, lane);
  __syncthreads();
  float top[kTogether][2], sum[kTogether][2];
#pragma unroll
  for (int g = 0; g < kTogether; ++g) top[g][0] = top[g][1] = -INFINITY, sum[g][0] = sum[g][1] = 0.f;
  load_rows<D>(smem_address(bytes[0]), k_head, begin, n, p.qkv.k_row_stride);
  for (int b = 0; b < kSpan; ++b) {
    const int64_t start = begin + b * 64;
    if (start >= n) break;
    if (b + 1 < kSpan && start + 64 < n) {
      load_rows<D>(smem_address(bytes[(b + 1) & 1]), k_head, start + 64, n, p.qkv.k_row_stride);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
#pragma unroll
    for (int g = 0; g < kTogether; ++g) {
      if (first_group + g >= p.groups) break;
      float s[32];
      multiply_keys<D, T>(s, q[g], smem_address(bytes[b & 1]), lane);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int64_t position = n - p.tail + (first_group + g) * 64 + warp * 16 + (lane >> 2) + 8 * r;
        const int seen = int(min(position - start, int64_t(64))) - 2 * (lane & 3);
        float high = top[g][r];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
          if (((i >> 1) & 1) != r) continue;
          s[i] = 8 * (i / 4) + (i & 1) <= seen ? s[i] * p.qkv.scale * kLog2e : -INFINITY;
          high = fmaxf(high, s[i]);
        }
        if (high == -INFINITY) continue;
        float total = 0.f;
#pragma unroll
        for (int i = 0; i < 32; ++i)
          if (((i >> 1) & 1) == r) total += exp2_fast(s[i] - high);
        sum[g][r] = sum[g][r] * exp2_fast(top[g][r] - high) + total;
        top[g][r] = high;
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2 * kTogether; ++i) {
    const int g = i / 2, r = i % 2;
    if (first_group + g >= p.groups) break;
    for (int o = 1; o < 4; o <<= 1) {
      const float other = __shfl_xor_sync(0xffffffffu, top[g][r], o), other_sum = __shfl_xor_sync(0xffffffffu, sum[g][r], o);
      const float high = fmaxf(top[g][r], other), base = high == -INFINITY ? 0.f : high;
      sum[g][r] = sum[g][r] * exp2_fast(top[g][r] - base) + other_sum * exp2_fast(other - base);
      top[g][r] = high;
    }
    if ((lane & 3) == 0) {
      const int64_t at = (int64_t(head) * p.spans + span) * p.groups * 64 + (first_group + g) * 64 + warp * 16 + (lane >> 2) + 8 * r;
      p.part_max[at] = top[g][r];
      p.part_sum[at] = sum[g][r];
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

/// One block per 64 keys: their columns, and what they give to the distances from each query. Each diagonal of a 64 x 64 tile
/// is one distance; the upper half of a group's 127 distances is the lower half of the next group's.
template <int D, class T>
__global__ void __launch_bounds__(kMmaThreads, 4) tail_sums_kernel(const __grid_constant__ TailParams p) {
  __shared__ __align__(128) uint8_t q_bytes[64 * D * 2], k_bytes[64 * D * 2];
  __shared__ float carry[2][64], other_half[64];
  extern __shared__ float probabilities_bytes[];  // [64][65]: with D 128 too much for static shared memory
  auto* probabilities = reinterpret_cast<float(*)[65]>(probabilities_bytes);
  const int chunk = blockIdx.x, head = blockIdx.y, t = threadIdx.x, warp = t / 32, lane = t & 31;
  const int64_t n = p.qkv.seq_len, start = 64 * int64_t(chunk);
  const T* q_head = static_cast<const T*>(p.qkv.q) + head * p.qkv.q_head_stride;
  const T* k_head = static_cast<const T*>(p.qkv.k) + head / (p.qkv.q_heads / p.qkv.kv_heads) * p.qkv.k_head_stride;
  float* slash = p.part_slash + (int64_t(head) * p.chunks + chunk) * (p.groups + 1) * 64;
  float column_sum = 0.f;  // of column t % 64, rows 32 (t / 64) and the 31 next
  load_rows<D>(smem_address(k_bytes), k_head, start, n, p.qkv.k_row_stride);
  load_rows<D>(smem_address(q_bytes), q_head, n - p.tail, n, p.qkv.q_row_stride);
  for (int group = 0; group < p.groups; ++group) {
    const int64_t first = n - p.tail + group * 64;
    copy_async_wait<0>();
    __syncthreads();  // the probabilities of the group before are no longer read, either
    uint32_t q[D / 16][4];
    load_queries<D>(q, smem_address(q_bytes), warp, lane);
    __syncthreads();
    if (group + 1 < p.groups) load_rows<D>(smem_address(q_bytes), q_head, first + 64, n, p.qkv.q_row_stride);
    float lse[2];
    int seen[2];  // the last column that a row of this thread sees
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 + (lane >> 2) + 8 * r;
      lse[r] = p.lse[(int64_t(head) * p.groups + group) * 64 + row];
      seen[r] = first + row < n ? int(min(first + row - start, int64_t(64))) : -1;
    }
    float s[32];
    multiply_keys<D, T>(s, q, smem_address(k_bytes), lane);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int r = (i >> 1) & 1, row = warp * 16 + (lane >> 2) + 8 * r, column = 8 * (i / 4) + 2 * (lane & 3) + (i & 1);
      probabilities[row][column] = column <= seen[r] ? exp2_fast(s[i] * p.qkv.scale * kLog2e - lse[r]) : 0.f;
    }
    __syncthreads();
#pragma unroll 8
    for (int row = 0; row < 32; ++row) column_sum += probabilities[32 * (t / 64) + row][t % 64];
    float distance_sum = 0.f;  // query - key = first - start + t - 63
#pragma unroll 8
    for (int row = 0; row < 64; ++row)
      if (const int column = row + 63 - t; column >= 0 && column < 64) distance_sum += probabilities[row][column];
    if (t < 64)
      slash[64 * group + t] = distance_sum + (group ? carry[(group + 1) & 1][t] : 0.f);
    else
      carry[group & 1][t - 64] = distance_sum;
  }
  if (t >= 64) {
    slash[64 * p.groups + t - 64] = carry[(p.groups + 1) & 1][t - 64];
    other_half[t - 64] = column_sum;
  }
  __syncthreads();
  if (t < 64 && start + t < n) p.vertical[head * n + start + t] = column_sum + other_half[t];
}

/// A distance's sum over the chunks that have it: one thread per distance.
__global__ void tail_slash_kernel(const __grid_constant__ TailParams p) {
  const int64_t n = p.qkv.seq_len, distance = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, width = (p.groups + 1) * 64;
  if (distance >= n) return;
  const int64_t offset = distance - (n - p.tail) + 63;  // place in chunk 0; 64 more in each next one
  float total = 0.f;
  for (int64_t c = offset < 0 ? (-offset + 63) / 64 : 0; c < p.chunks && offset + 64 * c < width; ++c)
    total += p.part_slash[(int64_t(blockIdx.y) * p.chunks + c) * width + offset + 64 * c];
  p.slash[blockIdx.y * n + distance] = total;
}

TailParams tail_params(const QkvView& qkv, int64_t tail, void* workspace) {
  TailParams p{};
  p.qkv = qkv;
  p.tail = std::min(tail, qkv.seq_len);
  p.groups = int((p.tail + 63) / 64);
  p.spans = int((qkv.seq_len + kSpan * 64 - 1) / (kSpan * 64));
  p.chunks = int((qkv.seq_len + 63) / 64);
  const int64_t part = int64_t(qkv.q_heads) * p.spans * p.groups * 64;
  p.part_max = static_cast<float*>(workspace);
  p.part_sum = p.part_max + part;
  p.lse = p.part_sum + part;
  p.part_slash = p.lse + int64_t(qkv.q_heads) * p.groups * 64;
  return p;
}

template <int D, class T>
void launch_tail(const TailParams& p, cudaStream_t stream) {
  const unsigned heads = p.qkv.q_heads, rows = p.groups * 64;
  tail_stats_kernel<D, T><<<dim3(p.spans, (p.groups + kTogether - 1) / kTogether, heads), kMmaThreads, 0, stream>>>(p);
  tail_lse_kernel<<<dim3((rows + 127) / 128, heads), 128, 0, stream>>>(p);
  cudaFuncSetAttribute(tail_sums_kernel<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kProbabilityBytes);
  tail_sums_kernel<D, T><<<dim3(p.chunks, heads), kMmaThreads, kProbabilityBytes, stream>>>(p);
  tail_slash_kernel<<<dim3(unsigned((p.qkv.seq_len + 255) / 256), heads), 256, 0, stream>>>(p);
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
  const size_t slash = size_t(p.chunks) * size_t(p.groups + 1);
  return size_t(qkv.q_heads) * ((2 * size_t(p.spans) + 1) * size_t(p.groups) + slash) * 64 * sizeof(float);
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
