// Block-granular vertical and slash stripes (FlexPrefill, SharePrefill) from the sums of the last queries to a mask of blocks.
// Each step is small; as ATen calls they are seventy launches a layer, and the host asks which heads are query-aware between
// them. Here the flags stay on the device: a block of a head that is not query-aware ends at once.
#include <cuda_runtime.h>

#include <cmath>

#include "kernels/cuda/primitives.cuh"
#include "kernels/selection.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32, kMeanThreads = 256;
constexpr int kTries = 3;       ///< thresholds per pass over the bit patterns of floats: two bits
constexpr int kMapRows = 128;   ///< blocks of threads that share the rows of a map

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

/// One value of all threads of the block, in a fixed order; every thread gets it. scratch [kWarps].
template <class Op, class T>
__device__ __forceinline__ T over_block(T x, T* scratch, T neutral) {
  const Op op;
  for (int o = 16; o; o >>= 1) x = op(x, __shfl_xor_sync(0xffffffffu, x, o));
  __syncthreads();  // the scratch of an earlier call has been read
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : neutral;
  for (int o = 16; o; o >>= 1) x = op(x, __shfl_xor_sync(0xffffffffu, x, o));
  return x;
}

/// Sum of x over the threads before this one. scratch [kWarps].
__device__ __forceinline__ int before(int x, int* scratch) {
  const int lane = threadIdx.x % 32;
  int upto = x;
  for (int o = 1; o < 32; o <<= 1) {
    const int left = __shfl_up_sync(0xffffffffu, upto, o);
    if (lane >= o) upto += left;
  }
  __syncthreads();
  if (lane == 31) scratch[threadIdx.x / 32] = upto;
  __syncthreads();
  int warps = 0;
  for (int w = 0; w < int(threadIdx.x / 32); ++w) warps += scratch[w];
  return warps + upto - x;
}

/// mean[dim] in shared memory: of rows [first, end) of a head. dim at most kMeanThreads.
template <class T>
__device__ __forceinline__ void mean_of_rows(float* mean, const T* head, int64_t row_stride, int64_t first, int64_t end, int dim) {
  __shared__ float part[kMeanThreads];
  const int lines = kMeanThreads / dim, line = threadIdx.x / dim, e = threadIdx.x % dim;
  float sum = 0;
  if (line < lines)
    for (int64_t r = first + line; r < end; r += lines) sum += float(head[r * row_stride + e]);
  part[threadIdx.x] = sum;
  __syncthreads();
  if (int(threadIdx.x) < dim) {
    sum = 0;
    for (int l = 0; l < lines; ++l) sum += part[l * dim + threadIdx.x];
    mean[threadIdx.x] = sum / float(end - first);
  }
  __syncthreads();
}

/// probs[0..count) = softmax(scale * mean . key_mean[c]); a warp a key block.
__device__ __forceinline__ void softmax_of_means(const float* mean, const float* key_mean, int dim, int count, float scale,
                                                 float* probs, float* scratch) {
  const int lane = threadIdx.x % 32;
  float top = -INFINITY;
  for (int c = threadIdx.x / 32; c < count; c += kMeanThreads / 32) {
    float dot = 0;
    for (int e = lane; e < dim; e += 32) dot += mean[e] * key_mean[int64_t(c) * dim + e];
    for (int o = 16; o; o >>= 1) dot += __shfl_xor_sync(0xffffffffu, dot, o);
    dot *= scale;
    if (lane == 0) probs[c] = dot;
    top = fmaxf(top, dot);
  }
  top = over_block<Larger>(top, scratch, -INFINITY);
  float sum = 0;
  for (int c = threadIdx.x; c < count; c += kMeanThreads) sum += probs[c] = expf(probs[c] - top);
  sum = over_block<Add>(sum, scratch, 0.0f);
  for (int c = threadIdx.x; c < count; c += kMeanThreads) probs[c] /= sum;
}

template <class T>
__global__ void __launch_bounds__(kMeanThreads) tail_means_kernel(const __grid_constant__ BlockMeansArgs p, int64_t first, float* probs) {
  __shared__ float mean[kMeanThreads], scratch[kWarps];
  const int head = blockIdx.x;
  mean_of_rows(mean, static_cast<const T*>(p.q) + head * p.q_head_stride, p.q_row_stride, first, p.seq_len, p.dim);
  softmax_of_means(mean, p.key_mean + int64_t(head / (p.q_heads / p.kv_heads)) * p.blocks * p.dim, p.dim, p.blocks, p.scale,
                   probs + int64_t(head) * p.blocks, scratch);
}

__device__ __forceinline__ double half_divergence(float x, float m) { return x > 0 ? double(x) * (log(double(x)) - log(double(m))) : 0.0; }

/// One block a head: bins, distance from the block-mean estimate, numbers of stripes.
__global__ void __launch_bounds__(kThreads) stripe_choice_kernel(const __grid_constant__ StripeChoiceArgs p) {
  __shared__ double scratch[kWarps];
  const int64_t head = blockIdx.x;
  const int lane = threadIdx.x % 32;
  for (int side = 0; side < 2; ++side) {
    const float* x = (side ? p.slash : p.vertical) + head * p.n;
    float* bins = (side ? p.slash_bins : p.vertical_bins) + head * p.blocks;
    for (int b = threadIdx.x / 32; b < p.blocks; b += kWarps) {
      const int64_t first = int64_t(b) * p.block, end = min(p.n, first + p.block);
      float sum = 0;
      for (int64_t i = first + lane; i < end; i += 32) sum += x[i];
      for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
      if (lane == 0) bins[b] = sum;
    }
  }
  __syncthreads();
  bool aware = false;
  if (p.from_means) {
    double sum = 0;
    for (int b = threadIdx.x; b < p.blocks; b += kThreads) {
      const float u = p.from_means[head * p.blocks + b], v = p.vertical_bins[head * p.blocks + b], m = (u + v) / 2;
      sum += half_divergence(u, m) + half_divergence(v, m);
    }
    sum = over_block<Add>(sum, scratch, 0.0);
    aware = sqrt(fmax(0.5 * sum, 0.0)) < p.tau;
  }
  if (threadIdx.x) return;
  const auto stripes = [&](const int64_t* counts) {
    return aware ? p.least : min(p.most, max(p.least, counts[head] / p.count_unit + 1));
  };
  p.verticals[head] = stripes(p.vertical_count);
  p.slashes[head] = stripes(p.slash_count);
  p.aware[head] = aware;
}

/// One block a row: the threshold is found by bisection over the bit patterns of non-negative floats. kCopy: the row fits
/// shared memory, else every pass reads it again.
template <bool kCopy>
__global__ void __launch_bounds__(kThreads) top_counts_kernel(const float* scores, const int64_t* counts, int cols, int forced,
                                                              uint8_t* mask) {
  extern __shared__ uint32_t copy[];
  __shared__ int scratch[kWarps];
  const float* x = scores + int64_t(blockIdx.x) * cols;
  uint8_t* out = mask + int64_t(blockIdx.x) * cols;
  const auto pattern = [&](int c) { return c < forced ? 0x7f800000u : __float_as_uint(fmaxf(x[c], 0.0f)); };
  const auto value = [&](int c) { return kCopy ? copy[c] : pattern(c); };
  if (kCopy) {
    for (int c = threadIdx.x; c < cols; c += kThreads) copy[c] = pattern(c);
    __syncthreads();
  }
  const int wanted = int(min(int64_t(cols), counts[blockIdx.x]));
  uint32_t least = 0;  // the largest pattern that `wanted` entries reach
  for (int bit = 31; bit > 0; bit -= 2) {
    int reach[kTries] = {};
#pragma unroll 4
    for (int c = threadIdx.x; c < cols; c += kThreads) {
      const uint32_t v = value(c);
#pragma unroll
      for (int t = 0; t < kTries; ++t) reach[t] += v >= (least | uint32_t(t + 1) << (bit - 1));
    }
    uint32_t most = 0;
#pragma unroll
    for (int t = 0; t < kTries; ++t)
      if (over_block<Add>(reach[t], scratch, 0) >= wanted) most = t + 1;
    least |= most << (bit - 1);
  }
  // equal entries by ascending column: each thread has a run of neighbouring columns
  const int run = (cols + kThreads - 1) / kThreads, first = min(cols, int(threadIdx.x) * run), end = min(cols, first + run);
  int above = 0, equal = 0;
  for (int c = first; c < end; ++c) above += value(c) > least, equal += value(c) == least;
  int left = wanted - over_block<Add>(above, scratch, 0) - before(equal, scratch);
  for (int c = first; c < end; ++c) out[c] = value(c) > least || (value(c) == least && left-- > 0);
}

__global__ void __launch_bounds__(256) stripe_mask_kernel(const uint8_t* vertical, const uint8_t* slash, int blocks, uint8_t* mask) {
  const int row = blockIdx.x;
  const int64_t head = blockIdx.y;
  const uint8_t *v = vertical + head * blocks, *s = slash + head * blocks;
  uint8_t* out = mask + (head * blocks + row) * blocks;
  for (int c = threadIdx.x; c < blocks; c += 256) out[c] = c <= row && (v[c] || s[row - c]);
}

/// The pooled map of query-aware heads, row by row; past the diagonal nothing is written.
template <class T>
__global__ void __launch_bounds__(kMeanThreads) aware_map_kernel(const __grid_constant__ BlockMeansArgs p, const uint8_t* aware, float* map) {
  const int head = blockIdx.y;
  if (!aware[head]) return;
  __shared__ float mean[kMeanThreads], scratch[kWarps];
  for (int row = p.blocks - 1 - int(blockIdx.x); row >= 0; row -= int(gridDim.x)) {
    const int64_t first = int64_t(row) * p.block;
    mean_of_rows(mean, static_cast<const T*>(p.q) + head * p.q_head_stride, p.q_row_stride, first, min(p.seq_len, first + p.block), p.dim);
    softmax_of_means(mean, p.key_mean + int64_t(head / (p.q_heads / p.kv_heads)) * p.blocks * p.dim, p.dim, row + 1, p.scale,
                     map + (int64_t(head) * p.blocks + row) * p.blocks, scratch);
  }
}

/// A block a head: the largest cells of the whole map until they hold `mass` of it, equal ones row after row.
__global__ void __launch_bounds__(kThreads) aware_cells_kernel(const float* map, const uint8_t* aware, int blocks, double mass, bool all,
                                                               uint8_t* mask) {
  const int64_t head = blockIdx.x;
  if (!aware[head]) return;
  __shared__ double scratch[kWarps];
  __shared__ int counted[kWarps];
  const float* x = map + head * blocks * blocks;
  uint8_t* out = mask + head * blocks * blocks;
  const double target = mass * blocks;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // a warp a row: cells in a fixed order, whatever the sum
  const auto cells = [&](auto&& each) {
    for (int r = warp; r < blocks; r += kWarps)
      for (int c = lane; c <= r; c += 32) each(int64_t(r) * blocks + c);
  };
  if (all) return cells([&](int64_t i) { out[i] = 1; });
  uint32_t least = 0;  // the largest pattern whose cells reach the target
  for (int bit = 31; bit > 0; bit -= 2) {
    double sum[kTries] = {};
    cells([&](int64_t i) {
      const float v = x[i];
#pragma unroll
      for (int t = 0; t < kTries; ++t)
        if (__float_as_uint(v) >= (least | uint32_t(t + 1) << (bit - 1))) sum[t] += v;
    });
    uint32_t most = 0;
#pragma unroll
    for (int t = 0; t < kTries; ++t)
      if (over_block<Add>(sum[t], scratch, 0.0) >= target) most = t + 1;
    least |= most << (bit - 1);
  }
  const float bar = __uint_as_float(least);
  double above = 0;
  int equal = 0;
  cells([&](int64_t i) {
    above += x[i] > bar ? x[i] : 0;
    equal += x[i] == bar;
  });
  above = over_block<Add>(above, scratch, 0.0);
  equal = over_block<Add>(equal, counted, 0);
  const double missing = target - above;
  const int wanted = missing <= 0 ? 0 : bar > 0 ? int(fmin(ceil(missing / double(bar)), double(equal))) : equal;
  cells([&](int64_t i) { out[i] |= x[i] > bar || (x[i] == bar && wanted == equal); });
  if (wanted == equal || wanted == 0) return;
  // some of several equal cells: by ascending place
  int taken = 0;
  for (int r = 0; r < blocks && taken < wanted; ++r)
    for (int begin = 0; begin <= r && taken < wanted; begin += kThreads) {
      const int c = begin + threadIdx.x;
      const bool mine = c <= r && x[int64_t(r) * blocks + c] == bar;
      const int rank = before(mine, counted);
      if (mine && taken + rank < wanted) out[int64_t(r) * blocks + c] = 1;
      taken += over_block<Add>(int(mine), counted, 0);
    }
}

Result launched() {
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

bool known(const BlockMeansArgs& p) {
  return (p.dtype == Dtype::bf16 || p.dtype == Dtype::f16) && p.dim >= 1 && p.dim <= kMeanThreads && p.q_heads % p.kv_heads == 0;
}
constexpr Result kUnknown = {Status::unsupported, "block means: bfloat16 or float16, head_dim up to 256"};

}  // namespace
}  // namespace cuda

Result tail_block_means_cuda(const BlockMeansArgs& p, int64_t rows, float* probs, void* stream) {
  if (!cuda::known(p)) return cuda::kUnknown;
  const auto s = static_cast<cudaStream_t>(stream);
  if (p.dtype == Dtype::f16)
    cuda::tail_means_kernel<__half><<<unsigned(p.q_heads), cuda::kMeanThreads, 0, s>>>(p, p.seq_len - rows, probs);
  else
    cuda::tail_means_kernel<__nv_bfloat16><<<unsigned(p.q_heads), cuda::kMeanThreads, 0, s>>>(p, p.seq_len - rows, probs);
  return cuda::launched();
}

Result stripe_choice_cuda(const StripeChoiceArgs& p, void* stream) {
  cuda::stripe_choice_kernel<<<unsigned(p.heads), cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  return cuda::launched();
}

Result top_counts_cuda(const float* scores, const int64_t* counts, int64_t rows, int64_t cols, int64_t forced, uint8_t* mask,
                       void* stream) {
  if (cols < 1 || cols > (1 << 30)) return {Status::unsupported, "top_counts: no columns, or too many"};
  if (rows == 0) return {};
  const auto s = static_cast<cudaStream_t>(stream);
  const int first = int(forced < cols ? forced : cols);
  if (cols <= 12000)  // 48 KB of shared memory
    cuda::top_counts_kernel<true><<<unsigned(rows), cuda::kThreads, size_t(cols) * 4, s>>>(scores, counts, int(cols), first, mask);
  else
    cuda::top_counts_kernel<false><<<unsigned(rows), cuda::kThreads, 0, s>>>(scores, counts, int(cols), first, mask);
  return cuda::launched();
}

Result stripe_mask_cuda(const uint8_t* vertical, const uint8_t* slash, int64_t heads, int64_t blocks, uint8_t* mask, void* stream) {
  if (heads == 0 || blocks == 0) return {};
  cuda::stripe_mask_kernel<<<dim3(unsigned(blocks), unsigned(heads)), 256, 0, static_cast<cudaStream_t>(stream)>>>(vertical, slash,
                                                                                                            int(blocks), mask);
  return cuda::launched();
}

Result add_aware_blocks_cuda(const BlockMeansArgs& p, const uint8_t* aware, double mass, float* map, uint8_t* mask, void* stream) {
  if (!cuda::known(p)) return cuda::kUnknown;
  const auto s = static_cast<cudaStream_t>(stream);
  const dim3 grid(unsigned(p.blocks < cuda::kMapRows ? p.blocks : cuda::kMapRows), unsigned(p.q_heads));
  if (mass < 1) {
    if (p.dtype == Dtype::f16)
      cuda::aware_map_kernel<__half><<<grid, cuda::kMeanThreads, 0, s>>>(p, aware, map);
    else
      cuda::aware_map_kernel<__nv_bfloat16><<<grid, cuda::kMeanThreads, 0, s>>>(p, aware, map);
  }
  cuda::aware_cells_kernel<<<unsigned(p.q_heads), cuda::kThreads, 0, s>>>(map, aware, p.blocks, mass, mass >= 1, mask);
  return cuda::launched();
}

}  // namespace prefill::kernels
