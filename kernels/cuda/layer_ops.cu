// A decoder layer's steps between its products, one pass over memory each. They are bound by memory and, on small models,
// by launches: as ATen calls they are 30 launches a layer and chunk, here four.
#include <cuda_runtime.h>

#include "kernels/cuda/primitives.cuh"
#include "kernels/layer_ops.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kKept = 8;  ///< float4 of a row that a thread keeps in registers between its two passes

template <class T>
__device__ __forceinline__ float2 unpack2(uint32_t x) {
  if constexpr (std::is_same_v<T, __half>)
    return __half22float2(reinterpret_cast<const __half2&>(x));
  else
    return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(x));
}
template <class T>
__device__ __forceinline__ void load8(float (&v)[8], const T* from) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = unpack2<T>(words[i]);
    v[2 * i] = two.x, v[2 * i + 1] = two.y;
  }
}
template <class T>
__device__ __forceinline__ void store8(T* to, const float (&v)[8]) {
  *reinterpret_cast<uint4*>(to) =
      make_uint4(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7]));
}

/// Sum over the kGroup threads that share a row.
template <int kGroup>
__device__ __forceinline__ float sum_of_row(float x) {
  for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
  if constexpr (kGroup > 32) {
    __shared__ float part[kGroup / 32];
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int w = 0; w < kGroup / 32; ++w) x += part[w];
  }
  return x;
}

/// kGroup threads a row: a warp for short rows, the whole block for long ones.
template <int kGroup, class T>
__global__ void __launch_bounds__(kThreads) add_rms_norm_kernel(const __grid_constant__ NormArgs p) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / kGroup) + threadIdx.x / kGroup;
  if (row >= p.rows) return;  // whole warps, and the block where it shares a row
  const int lane = threadIdx.x % kGroup, quads = int(p.cols / 4);
  float4* const x = reinterpret_cast<float4*>(p.x + row * p.cols);
  const uint2* const y = p.y ? reinterpret_cast<const uint2*>(static_cast<const T*>(p.y) + row * p.cols) : nullptr;
  float4 kept[kKept];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int c = i * kGroup + lane;
    if (c >= quads) break;
    float4 v = x[c];
    if (y) {
      const uint2 raw = y[c];
      const float2 low = unpack2<T>(raw.x), high = unpack2<T>(raw.y);
      v.x += low.x, v.y += low.y, v.z += high.x, v.w += high.y;
      x[c] = v;
    }
    kept[i] = v;
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  if (!p.out) return;
  const float scale = rsqrtf(sum_of_row<kGroup>(sum) / float(p.cols) + p.eps);
  uint2* const out = reinterpret_cast<uint2*>(static_cast<T*>(p.out) + row * p.cols);
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int c = i * kGroup + lane;
    if (c >= quads) break;
    const float4 w = reinterpret_cast<const float4*>(p.weight)[c], v = kept[i];
    out[c] = make_uint2(pack2<T>(v.x * scale * w.x, v.y * scale * w.y), pack2<T>(v.z * scale * w.z, v.w * scale * w.w));
  }
}

/// A thread has 8 dimensions of a head and those half a head further; dim/16 threads a head.
template <class T>
__global__ void __launch_bounds__(kThreads) split_heads_kernel(const __grid_constant__ SplitHeadsArgs p) {
  const uint32_t parts = uint32_t(p.dim) / 16, heads = uint32_t(p.q_heads + 2 * p.kv_heads);
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x, part = i % parts, head = i / parts % heads;
  const int64_t row = i / (parts * heads);
  const bool live = row < p.rows;  // the others take part in the sums
  const int half = p.dim / 2;
  const bool is_q = head < uint32_t(p.q_heads), is_v = head >= uint32_t(p.q_heads + p.kv_heads);
  float a[8] = {}, b[8] = {};
  if (live) {
    const T* from = static_cast<const T*>(p.all) + (row * heads + head) * p.dim + part * 8;
    load8(a, from);
    load8(b, from + half);
  }
  if (p.q_norm) {
    float sum = 0;
#pragma unroll
    for (int e = 0; e < 8; ++e) sum += a[e] * a[e] + b[e] * b[e];
    for (uint32_t o = 1; o < parts; o <<= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    const float scale = rsqrtf(sum / float(p.dim) + p.eps);
    if (live && !is_v) {
      const float* weight = (is_q ? p.q_norm : p.k_norm) + part * 8;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        a[e] = float(T(a[e] * scale * weight[e]));
        b[e] = float(T(b[e] * scale * weight[half + e]));
      }
    }
  }
  if (!live) return;
  if (!is_v) {
    const float *cos = p.cos + row * half + part * 8, *sin = p.sin + row * half + part * 8;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const float low = a[e] * cos[e] - b[e] * sin[e], high = b[e] * cos[e] + a[e] * sin[e];
      a[e] = low, b[e] = high;
    }
  }
  const int64_t h = is_q ? head : is_v ? head - p.q_heads - p.kv_heads : head - p.q_heads;
  T* to = is_q   ? static_cast<T*>(p.q) + h * p.q_head_stride + row * p.q_row_stride
          : is_v ? static_cast<T*>(p.v) + h * p.v_head_stride + row * p.v_row_stride
                 : static_cast<T*>(p.k) + h * p.k_head_stride + row * p.k_row_stride;
  store8(to + part * 8, a);
  store8(to + part * 8 + half, b);
}

template <class T>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(const T* both, T* out, int64_t rows, int64_t cols) {
  const int64_t row = blockIdx.x;
  const T* gate = both + row * 2 * cols;
  for (int64_t c = int64_t(threadIdx.x) * 8; c < cols; c += kThreads * 8) {
    float g[8], u[8];
    load8(g, gate + c);
    load8(u, gate + cols + c);
#pragma unroll
    for (int e = 0; e < 8; ++e) g[e] = g[e] / (1 + __expf(-g[e])) * u[e];
    store8(out + row * cols + c, g);
  }
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
bool half_type(Dtype t) { return t == Dtype::bf16 || t == Dtype::f16; }

template <class T>
void launch_norm(const NormArgs& p, cudaStream_t stream) {
  if (p.cols <= 4 * 32 * kKept)
    add_rms_norm_kernel<32, T><<<unsigned((p.rows + kThreads / 32 - 1) / (kThreads / 32)), kThreads, 0, stream>>>(p);
  else
    add_rms_norm_kernel<kThreads, T><<<unsigned(p.rows), kThreads, 0, stream>>>(p);
}

Result launched() {
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace
}  // namespace cuda

Result add_rms_norm_cuda(const NormArgs& p, void* stream) {
  if (!cuda::half_type(p.dtype) || p.cols % 8 || p.cols > 4 * cuda::kThreads * cuda::kKept || !cuda::aligned(p.x) ||
      !cuda::aligned(p.y) || !cuda::aligned(p.weight) || !cuda::aligned(p.out))
    return {Status::unsupported, "add_rms_norm: 16-bit results, columns a multiple of 8 up to 8192, aligned rows"};
  if (p.rows == 0) return {};
  const auto s = static_cast<cudaStream_t>(stream);
  p.dtype == Dtype::f16 ? cuda::launch_norm<__half>(p, s) : cuda::launch_norm<__nv_bfloat16>(p, s);
  return cuda::launched();
}

Result split_heads_cuda(const SplitHeadsArgs& p, void* stream) {
  const int64_t parts = p.dim / 16, threads = p.rows * (p.q_heads + 2 * p.kv_heads) * parts;
  bool fits = cuda::half_type(p.dtype) && p.dim >= 16 && p.dim % 16 == 0 && threads < (int64_t(1) << 31);
  if (p.q_norm) fits = fits && (parts & (parts - 1)) == 0 && parts <= 32;
  for (const void* at : {p.all, static_cast<const void*>(p.cos), static_cast<const void*>(p.sin),
                         static_cast<const void*>(p.q), static_cast<const void*>(p.k), static_cast<const void*>(p.v)})
    fits = fits && cuda::aligned(at);
  for (int64_t stride : {p.q_head_stride, p.q_row_stride, p.k_head_stride, p.k_row_stride, p.v_head_stride, p.v_row_stride})
    fits = fits && stride % 8 == 0;
  if (!fits) return {Status::unsupported, "split_heads: bfloat16 or float16, head_dim a multiple of 16, aligned rows"};
  if (threads == 0) return {};
  const auto s = static_cast<cudaStream_t>(stream);
  const auto blocks = unsigned((threads + cuda::kThreads - 1) / cuda::kThreads);
  if (p.dtype == Dtype::f16)
    cuda::split_heads_kernel<__half><<<blocks, cuda::kThreads, 0, s>>>(p);
  else
    cuda::split_heads_kernel<__nv_bfloat16><<<blocks, cuda::kThreads, 0, s>>>(p);
  return cuda::launched();
}

Result silu_mul_cuda(const void* both, void* out, Dtype dtype, int64_t rows, int64_t cols, void* stream) {
  if (!cuda::half_type(dtype) || cols % 8 || !cuda::aligned(both) || !cuda::aligned(out))
    return {Status::unsupported, "silu_mul: bfloat16 or float16, columns a multiple of 8, aligned rows"};
  if (rows == 0 || cols == 0) return {};
  const auto s = static_cast<cudaStream_t>(stream);
  if (dtype == Dtype::f16)
    cuda::silu_mul_kernel<<<unsigned(rows), cuda::kThreads, 0, s>>>(static_cast<const __half*>(both), static_cast<__half*>(out),
                                                                   rows, cols);
  else
    cuda::silu_mul_kernel<<<unsigned(rows), cuda::kThreads, 0, s>>>(static_cast<const __nv_bfloat16*>(both),
                                                                   static_cast<__nv_bfloat16*>(out), rows, cols);
  return cuda::launched();
}

}  // namespace prefill::kernels
