// Tile energies of FlashPrefill in one pass: raw queries against block means on the tensor cores, exponentials and
// sums over the queries of a tile without the logits ever reaching memory.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/selection.h"
#include "kernels/cuda/tile_mma.cuh"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kRows = 16 * kWarps, kCols = 64;
constexpr int kMostCols = 16384;  ///< sums of a whole row stay in shared memory

struct EnergyParams {
  const void *q, *kbar;
  int64_t n, q_head_stride, q_row_stride;
  int q_tile, k_tile, fold, group, rows, cols;
  bool first_token, padded;
  float scale_log2;
  float* energy;  ///< [q_heads / fold][rows][cols]
};

template <int D>
constexpr size_t shared_bytes(int cols) {
  const int chunks = (cols + kCols - 1) / kCols;
  return 2 * kCols * D * 2 + sizeof(float) * (kWarps * kCols + kWarps + chunks * (kCols + 1));
}

template <int D, class T>
__device__ __forceinline__ void load_means(uint32_t tile, const T* head, int first, int cols) {
  for (int i = threadIdx.x; i < kCols * D / 8; i += kThreads) {
    const int row = i / (D / 8), column = i % (D / 8);
    const bool real = first + row < cols;
    copy_async_16(piece<D>(tile, row, column), head + (real ? int64_t(first + row) * D : 0) + column * 8, real);
  }
  copy_async_commit();
}

/// v[i] of the eight lanes that share lane%4, summed; lane (h1 h2 h3 x x) ends with sums 8 h1 + 4 h2 + 2 h3 + {0, 1}.
__device__ __forceinline__ void reduce_scatter(float (&v)[16], int lane) {
#pragma unroll
  for (int half = 8, bit = 16; half > 1; half >>= 1, bit >>= 1) {
    const bool upper = lane & bit;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float send = upper ? v[i] : v[i + half], keep = upper ? v[i + half] : v[i];
      v[i] = keep + __shfl_xor_sync(0xffffffffu, send, bit);
    }
  }
}

/// One block per (row of tiles, head of the result). A row's M = max of its logits is known at its end only: each chunk
/// of 64 columns is summed relative to its own maximum, and rescaled then.
template <int D, class T>
__global__ void __launch_bounds__(kThreads, 2) tile_energy_kernel(const __grid_constant__ EnergyParams p) {
  extern __shared__ __align__(128) uint8_t shared[];
  float* const part = reinterpret_cast<float*>(shared + 2 * kCols * D * 2);  // [warps][kCols]
  float* const part_top = part + kWarps * kCols;                             // [warps]
  const int row = int(gridDim.x - 1 - blockIdx.x), head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int64_t first = int64_t(row) * p.q_tile, last = (p.padded ? first + p.q_tile : min(p.n, first + p.q_tile)) - 1;
  const int seen = int(min(int64_t(p.cols), p.first_token ? last / p.k_tile + 1 : (last + 1) / p.k_tile));
  const int chunks = (seen + kCols - 1) / kCols, all_chunks = (p.cols + kCols - 1) / kCols;
  float* const sum = part_top + kWarps;  // [all_chunks][kCols]
  float* const top = sum + all_chunks * kCols;
  const T* means = static_cast<const T*>(p.kbar) + int64_t(head * p.fold / p.group) * p.cols * D;
  const uint32_t stage[2] = {smem_address(shared), smem_address(shared) + kCols * D * 2};

  for (int packed = 0; packed < p.fold * p.q_tile; packed += kRows) {
    const int mine = packed + warp * 16, member = mine / p.q_tile;  // 16 rows are of one query head
    const int64_t token = first + mine % p.q_tile + (lane >> 2);
    uint32_t q[D / 16][4];
    int limit[2];  // block means that this thread's two rows see
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t pos = token + 8 * r;
      const bool there = member < p.fold && pos < p.n, counts = member < p.fold && (p.padded || pos < p.n);
      const T* from = static_cast<const T*>(p.q) + (head * p.fold + (there ? member : 0)) * p.q_head_stride +
                      (there ? pos : 0) * p.q_row_stride + 2 * (lane & 3);
      limit[r] = counts ? int(min(int64_t(p.cols), p.first_token ? pos / p.k_tile + 1 : (pos + 1) / p.k_tile)) : 0;
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        q[i][r] = there ? *reinterpret_cast<const uint32_t*>(from + 16 * i) : 0;
        q[i][2 + r] = there ? *reinterpret_cast<const uint32_t*>(from + 16 * i + 8) : 0;
      }
    }
    if (chunks) load_means<D>(stage[0], means, 0, p.cols);
    for (int c = 0; c < chunks; ++c) {
      if (c + 1 < chunks) {
        load_means<D>(stage[(c + 1) & 1], means, (c + 1) * kCols, p.cols);
        copy_async_wait<1>();
      } else {
        copy_async_wait<0>();
      }
      __syncthreads();
      float s[32];
      multiply_keys<D, T>(s, q, stage[c & 1], lane);
      float high = -INFINITY;
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int column = c * kCols + 8 * (i / 4) + 2 * (lane & 3) + (i & 1);
        s[i] = column < limit[(i >> 1) & 1] ? s[i] * p.scale_log2 : -INFINITY;
        high = fmaxf(high, s[i]);
      }
      for (int o = 1; o < 32; o <<= 1) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, o));
      const float base = high == -INFINITY ? 0.f : high;
      float v[16];
#pragma unroll
      for (int i = 0; i < 16; ++i)
        v[i] = exp2_fast(s[4 * (i / 2) + (i & 1)] - base) + exp2_fast(s[4 * (i / 2) + 2 + (i & 1)] - base);
      reduce_scatter(v, lane);
      const int j = ((lane >> 4) << 2) | (((lane >> 3) & 1) << 1) | ((lane >> 2) & 1);
      *reinterpret_cast<float2*>(part + warp * kCols + 8 * j + 2 * (lane & 3)) = make_float2(v[0], v[1]);
      if (lane == 0) part_top[warp] = high;
      __syncthreads();
      if (threadIdx.x < kCols) {
        float highest = packed ? top[c] : -INFINITY;
        for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, part_top[w]);
        const float from = highest == -INFINITY ? 0.f : highest;
        float total = packed ? sum[c * kCols + threadIdx.x] * exp2_fast(top[c] - from) : 0.f;
        for (int w = 0; w < kWarps; ++w) total += part[w * kCols + threadIdx.x] * exp2_fast(part_top[w] - from);
        sum[c * kCols + threadIdx.x] = total;
        part[threadIdx.x] = highest;  // top[c] is still read by the other warp of these 64 threads
      }
      __syncthreads();
      if (threadIdx.x == 0) top[c] = part[0];
    }
    __syncthreads();
  }
  float highest = -INFINITY;
  for (int c = 0; c < chunks; ++c) highest = fmaxf(highest, top[c]);
  if (highest == -INFINITY) highest = 0.f;
  float* out = p.energy + (int64_t(head) * p.rows + row) * p.cols;
  for (int i = threadIdx.x; i < p.cols; i += kThreads)
    out[i] = i < seen ? sum[i] * exp2_fast(top[i / kCols] - highest) : 0.f;
}

template <int D, class T>
cudaError_t launch(const EnergyParams& p, int heads, cudaStream_t stream) {
  const size_t bytes = shared_bytes<D>(p.cols);
  if (auto rc = cudaFuncSetAttribute(tile_energy_kernel<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
      rc != cudaSuccess)
    return rc;
  tile_energy_kernel<D, T><<<dim3(p.rows, heads), kThreads, bytes, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace
}  // namespace cuda

Result tile_energy_cuda(const void* q, const void* kbar, Dtype dtype, int q_heads, int kv_heads, int64_t seq_len, int dim,
                        int64_t q_head_stride, int64_t q_row_stride, float scale, int q_tile, int k_tile, bool first_token,
                        bool per_kv_head, bool padded_rows, float* energy, void* stream) {
  cuda::EnergyParams p{};
  p.q = q, p.kbar = kbar, p.n = seq_len, p.q_head_stride = q_head_stride, p.q_row_stride = q_row_stride;
  p.q_tile = q_tile, p.k_tile = k_tile, p.group = q_heads / kv_heads, p.fold = per_kv_head ? p.group : 1;
  p.rows = int((seq_len + q_tile - 1) / q_tile), p.cols = int((seq_len + k_tile - 1) / k_tile);
  p.first_token = first_token, p.padded = padded_rows, p.scale_log2 = scale * 1.4426950408889634f, p.energy = energy;
  if ((dtype != Dtype::bf16 && dtype != Dtype::f16) || (dim != 64 && dim != 128) || q_tile % 16 || k_tile < 1 ||
      p.cols > cuda::kMostCols || q_heads / p.fold > 65535)
    return {Status::unsupported, "tile_energy: bfloat16 or float16, head_dim 64 or 128, q_tile a multiple of 16"};
  if (reinterpret_cast<uintptr_t>(q) % 4 || q_head_stride % 2 || q_row_stride % 2 || reinterpret_cast<uintptr_t>(kbar) % 16)
    return {Status::unsupported, "tile_energy: unaligned"};
  const auto s = static_cast<cudaStream_t>(stream);
  const int heads = q_heads / p.fold;
  cudaError_t rc;
  if (dtype == Dtype::f16)
    rc = dim == 64 ? cuda::launch<64, __half>(p, heads, s) : cuda::launch<128, __half>(p, heads, s);
  else
    rc = dim == 64 ? cuda::launch<64, __nv_bfloat16>(p, heads, s) : cuda::launch<128, __nv_bfloat16>(p, heads, s);
  if (rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace prefill::kernels
