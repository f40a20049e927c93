// AnchorAttention's choice of columns: pooled queries against every candidate key on the tensor cores, compared with the
// anchors at once; one byte per (head, group of queries, key) reaches memory.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/selection.h"
#include "kernels/cuda/tile_mma.cuh"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kSpanKeys = 2048;  ///< keys that one block judges

template <int D, class T>
__device__ __forceinline__ void load_keys(uint32_t tile, const T* head, int64_t first, int64_t n, int64_t stride) {
  for (int i = threadIdx.x; i < 64 * D / 8; i += kMmaThreads) {
    const int row = i / (D / 8), column = i % (D / 8);
    const bool real = first + row < n;
    copy_async_16(piece<D>(tile, row, column), head + (real ? (first + row) * stride : 0) + column * 8, real);
  }
  copy_async_commit();
}

/// One block per (span of keys, group of queries, four query heads of a key head); a warp owns one of the heads. The
/// float32 queries go in as a sum of two values of the keys' dtype, which keeps 16 bits of them.
template <int D, class T>
__global__ void __launch_bounds__(kMmaThreads) stripe_hits_kernel(const __grid_constant__ StripeArgs p) {
  __shared__ __align__(128) uint8_t bytes[2][64 * D * 2];
  const int group = 1 + blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x & 31, per_kv = p.q_heads / p.kv_heads;
  const int quads = (per_kv + 3) / 4, kv = blockIdx.z / quads, member = blockIdx.z % quads * 4 + warp;
  const bool live = member < per_kv;
  const int head = kv * per_kv + (live ? member : 0);
  const int64_t end = min(p.n, (group + 1 - p.local_groups) * p.span);
  const int64_t from = p.init + int64_t(blockIdx.x) * kSpanKeys, to = min(end, from + kSpanKeys);
  if (from >= to) return;

  uint32_t high[D / 16][4], low[D / 16][4];
  float bar[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = (lane >> 2) + 8 * r;
    const int64_t block = int64_t(group) * p.step + row;
    const bool real = row < p.step && block < p.blocks;
    bar[r] = real ? p.bar[int64_t(head) * p.blocks + block] : INFINITY;
    const float* q = p.qbar + (int64_t(head) * p.blocks + (real ? block : 0)) * D + 2 * (lane & 3);
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 x = real ? *reinterpret_cast<const float2*>(q + 16 * i + 8 * half) : make_float2(0.f, 0.f);
        const float a = float(T(x.x)), b = float(T(x.y));
        high[i][r + 2 * half] = pack2<T>(a, b);
        low[i][r + 2 * half] = pack2<T>(x.x - a, x.y - b);
      }
  }
  const T* keys = static_cast<const T*>(p.k) + kv * p.k_head_stride;
  uint8_t* out = p.hits + (int64_t(head) * p.all_groups + group) * p.n;
  const uint32_t stage[2] = {smem_address(bytes[0]), smem_address(bytes[1])};
  const int batches = int((to - from + 63) / 64);
  load_keys<D>(stage[0], keys, from, p.n, p.k_row_stride);
  for (int b = 0; b < batches; ++b) {
    if (b + 1 < batches) {
      load_keys<D>(stage[(b + 1) & 1], keys, from + 64 * (b + 1), p.n, p.k_row_stride);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    float s[32], rest[32];
    multiply_keys<D, T>(s, high, stage[b & 1], lane);
    multiply_keys<D, T>(rest, low, stage[b & 1], lane);
    uint32_t hit = 0;  // bit 2j + e: key 8j + 2*(lane%4) + e
#pragma unroll
    for (int i = 0; i < 32; ++i)
      if ((s[i] + rest[i]) * p.scale >= bar[(i >> 1) & 1]) hit |= 1u << (2 * (i / 4) + (i & 1));
    for (int o = 4; o < 32; o <<= 1) hit |= __shfl_xor_sync(0xffffffffu, hit, o);
    const int j = lane >> 2;
    const int64_t key = from + 64 * b + 8 * j + 2 * (lane & 3);
    if (live && key < to) out[key] = (hit >> (2 * j)) & 1;
    if (live && key + 1 < to) out[key + 1] = (hit >> (2 * j + 1)) & 1;
    __syncthreads();
  }
}

template <int D, class T>
void launch(const StripeArgs& p, cudaStream_t stream) {
  const int quads = (p.q_heads / p.kv_heads + 3) / 4;
  const int64_t longest = std::min(p.n, (p.groups - p.local_groups) * p.span) - p.init;
  stripe_hits_kernel<D, T><<<dim3(unsigned((longest + kSpanKeys - 1) / kSpanKeys), unsigned(p.groups - 1),
                                  unsigned(p.kv_heads * quads)),
                             kMmaThreads, 0, stream>>>(p);
}

}  // namespace
}  // namespace cuda

Result stripe_hits_cuda(const StripeArgs& p, void* stream) {
  if ((p.dtype != Dtype::bf16 && p.dtype != Dtype::f16) || (p.dim != 64 && p.dim != 128) || p.step < 1 || p.step > 16 ||
      reinterpret_cast<uintptr_t>(p.k) % 16 || p.k_row_stride % 8 || p.k_head_stride % 8 ||
      reinterpret_cast<uintptr_t>(p.qbar) % 8)
    return {Status::unsupported, "stripe_hits: bfloat16 or float16, head_dim 64 or 128, step at most 16, aligned keys"};
  if (p.groups < 2 || std::min(p.n, (p.groups - p.local_groups) * p.span) <= p.init) return {};  // no candidate
  const auto s = static_cast<cudaStream_t>(stream);
  if (p.dtype == Dtype::f16)
    p.dim == 64 ? cuda::launch<64, __half>(p, s) : cuda::launch<128, __half>(p, s);
  else
    p.dim == 64 ? cuda::launch<64, __nv_bfloat16>(p, s) : cuda::launch<128, __nv_bfloat16>(p, s);
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace prefill::kernels
