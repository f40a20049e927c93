// Block masses of strided token groups (XAttention): checks and launches, and the pass that normalises what
// the product kernel leaves (strided_scores_sm90.cu).
#include "kernels/cuda/strided_mass.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "kernels/api.h"
#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/tensor_maps.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr size_t kMostScratch = size_t(768) << 20;  ///< unless one key head needs more
constexpr size_t kMostOfHead = size_t(8) << 30, kMostShared = 220 * 1024;
constexpr int kBandRows = 4096;  ///< query groups, of all heads of a group, that walk the columns together

struct MassParams {
  int row_tiles, per_block, blocks, groups;
  const float2* stats;
  const float* sums;
  float* mass;  ///< [head of this launch][blocks][blocks]
};

/// One block of threads per (row of blocks, head). A row's largest score and its sum come from its tiles;
/// each tile's sums then count with 2^(largest of the tile - largest of the row) / sum of the row.
__global__ void __launch_bounds__(kThreads) block_mass_kernel(const __grid_constant__ MassParams p) {
  extern __shared__ float weights[];  // [per_block][cols]
  const int block_row = int(gridDim.x - 1 - blockIdx.x), warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int first = block_row * p.per_block, tile_row = first / kScoreRows, in_tile = first % kScoreRows;
  const int cols = (first + p.per_block - 1) / kScoreCols + 1, per_tile = kScoreCols / p.per_block;
  const int64_t tile = int64_t(blockIdx.y) * tiles_before(p.row_tiles) + tiles_before(tile_row);
  for (int r = warp; r < p.per_block; r += kThreads / 32) {
    const float2* stats = p.stats + tile * kScoreRows + in_tile + r;
    float top = -INFINITY, total = 0.f;
    if (first + r < p.groups)
      for (int c = lane; c < cols; c += 32) top = fmaxf(top, stats[int64_t(c) * kScoreRows].x);
#pragma unroll
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, o));
    const float base = top == -INFINITY ? 0.f : top;
    if (first + r < p.groups)
      for (int c = lane; c < cols; c += 32)
        total += stats[int64_t(c) * kScoreRows].y * exp2_fast(stats[int64_t(c) * kScoreRows].x - base);
#pragma unroll
    for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);
    for (int c = lane; c < cols; c += 32)
      weights[r * cols + c] = total > 0.f ? exp2_fast(stats[int64_t(c) * kScoreRows].x - base) / total : 0.f;
  }
  __syncthreads();
  float* out = p.mass + (int64_t(blockIdx.y) * p.blocks + block_row) * p.blocks;
  for (int b = threadIdx.x; b < p.blocks; b += kThreads) {
    float total = 0.f;
    if (b <= block_row) {
      const int c = b / per_tile;
      const float* sums = p.sums + ((tile + c) * kScoreRows + in_tile) * per_tile + b % per_tile;
#pragma unroll 8
      for (int r = 0; r < p.per_block; ++r) total += weights[r * cols + c] * __ldcs(sums + r * per_tile);
    }
    out[b] = total;
  }
}

struct Sizes {
  int groups, blocks, per_block, row_tiles, kv_heads;  ///< kv_heads: of one launch
  size_t stats, sums, shared;                          ///< bytes of one launch; of shared memory
};

Sizes sizes_of(const StridedArgs& a) {
  Sizes s{};
  s.groups = int((a.seq_len + a.stride - 1) / a.stride);
  s.blocks = int((a.seq_len + a.block - 1) / a.block);
  s.per_block = a.block / a.stride;
  s.row_tiles = (s.groups + kScoreRows - 1) / kScoreRows;
  const size_t rows = size_t(a.q_heads / a.kv_heads) * size_t(tiles_before(s.row_tiles)) * kScoreRows;
  const size_t stats = rows * sizeof(float2), sums = rows * size_t(kScoreCols / s.per_block) * sizeof(float);
  s.kv_heads = int(std::clamp<size_t>(kMostScratch / (stats + sums), 1, size_t(a.kv_heads)));
  s.stats = stats * size_t(s.kv_heads), s.sums = sums * size_t(s.kv_heads);
  s.shared = sizeof(float) * size_t(s.per_block) * size_t(tile_columns(s.row_tiles - 1));
  return s;
}

Result check(const StridedArgs& a) {
  if ((a.dtype != Dtype::bf16 && a.dtype != Dtype::f16) || (a.dim != 64 && a.dim != 128))
    return {Status::unsupported, "strided_mass: bfloat16 or float16, head_dim 64 or 128"};
  if (a.stride < 1 || a.stride > 128 || a.block % a.stride || a.seq_len < a.stride ||
      a.seq_len / a.stride >= 1 << 20)
    return {Status::unsupported,
            "strided_mass: strides up to 128 that divide the block, 1 to 2^20 whole groups"};
  if (const int per = a.block / a.stride; per < 2 || per > 64 || (per & (per - 1)))
    return {Status::unsupported, "strided_mass: blocks of 2 to 64 groups, a power of two"};
  if (a.q_heads % a.kv_heads || a.q_heads > 65535 || !(a.scale > 0))
    return {Status::bad_argument, "strided_mass: heads or scale"};
  for (int64_t stride : {a.q_head_stride, a.q_row_stride, a.k_head_stride, a.k_row_stride})
    if (stride % 8) return {Status::unsupported, "strided_mass: unaligned"};
  if (reinterpret_cast<uintptr_t>(a.q) % 16 || reinterpret_cast<uintptr_t>(a.k) % 16)
    return {Status::unsupported, "strided_mass: unaligned"};
  if (std::strcmp(attend_cuda_isa(), "sm90a")) return {Status::unsupported, "strided_mass: Hopper only"};
  if (const Sizes s = sizes_of(a); s.shared > kMostShared || s.stats + s.sums > kMostOfHead)
    return {Status::unsupported, "strided_mass: too many groups"};
  return {};
}

}  // namespace
}  // namespace cuda

size_t strided_mass_cuda_workspace(const StridedArgs& a) {
  if (cuda::check(a).status != Status::ok) return 0;
  const cuda::Sizes s = cuda::sizes_of(a);
  return s.stats + s.sums;
}

Result strided_mass_cuda(const StridedArgs& a, void* workspace, void* stream_handle) {
  using namespace cuda;
  if (Result r = check(a); r.status != Status::ok) return r;
  const auto stream = static_cast<cudaStream_t>(stream_handle);
  const Sizes s = sizes_of(a);
  const int group = a.q_heads / a.kv_heads;

  StridedParams p{};
  p.partial = int(a.seq_len % a.stride);
  for (int i = 0; i < 2; ++i) {
    const int64_t groups = i == 0 ? s.groups : a.seq_len / a.stride;
    if (Result r = make_group_map(p.q[i], a.q, a.dtype, a.dim, a.stride, groups, a.q_heads, a.q_row_stride,
                                  a.q_head_stride, kScoreRows);
        r.status != Status::ok)
      return r;
    if (Result r = make_group_map(p.k[i], a.k, a.dtype, a.dim, a.stride, groups, a.kv_heads, a.k_row_stride,
                                  a.k_head_stride, kScoreCols);
        r.status != Status::ok)
      return r;
  }
  p.q_heads = a.q_heads, p.kv_heads = a.kv_heads, p.stride = a.stride, p.halves = a.dim / 64;
  p.per_block = s.per_block, p.row_tiles = s.row_tiles, p.band = std::max(1, kBandRows / kScoreRows / group);
  p.rounded = a.rounded, p.scale_log2 = a.scale * 1.4426950408889634f;
  p.stats = static_cast<float2*>(workspace);
  p.sums = reinterpret_cast<float*>(static_cast<char*>(workspace) + s.stats);
  std::copy(a.key_order, a.key_order + a.stride, p.key_order);
  MassParams m{s.row_tiles, s.per_block, s.blocks, s.groups, p.stats, p.sums, nullptr};

  int device = 0, multiprocessors = 0;
  cudaError_t rc = cudaGetDevice(&device);
  if (rc == cudaSuccess)
    rc = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (rc == cudaSuccess)
    rc = cudaFuncSetAttribute(block_mass_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(s.shared));
  for (int first = 0; rc == cudaSuccess && first < a.kv_heads; first += s.kv_heads) {
    const int kv_heads = std::min(s.kv_heads, a.kv_heads - first);
    p.first_kv_head = first;
    rc = strided_scores_sm90(p, kv_heads, a.dtype == Dtype::f16, multiprocessors, stream);
    if (rc != cudaSuccess) break;
    m.mass = a.mass + int64_t(first) * group * s.blocks * s.blocks;
    block_mass_kernel<<<dim3(unsigned(s.blocks), unsigned(kv_heads * group)), kThreads, s.shared, stream>>>(
        m);
    rc = cudaGetLastError();
  }
  if (rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}

}  // namespace prefill::kernels
