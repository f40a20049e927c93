// MInference's vertical lines and slashes as the tiles and columns of a plan. Tiles start anywhere, and how far a row's
// tiles lie from its first query is the same for every row of a head: they are found once a head, by a walk over the
// chosen distances, and every row shifts them.
#include <cuda_runtime.h>

#include "kernels/selection.h"

namespace prefill::kernels {
namespace cuda {
namespace {

constexpr int kThreads = 128, kWalkers = 1024;
constexpr int64_t kMostTokens = 224 * 1024 * 8;  ///< one bit of shared memory each

/// First set bit of bits [0, words * 32) at `from` or after it; past the end where there is none.
__device__ int64_t next_set(const uint32_t* bits, int64_t words, int64_t from) {
  int64_t w = from >> 5;
  if (w >= words) return words * 32;
  uint32_t word = bits[w] & (~0u << (from & 31));
  while (!word) {
    if (++w == words) return words * 32;
    word = bits[w];
  }
  return w * 32 + __ffs(int(word)) - 1;
}

/// One block per head.
__global__ void __launch_bounds__(kWalkers) offsets_kernel(const SlashCoverArgs p) {
  extern __shared__ uint32_t bits[];
  const int64_t words = (p.n + 31) / 32, most = p.n / p.tile + 2;
  const uint8_t* distances = p.distances + blockIdx.x * p.n;
  int32_t* offsets = p.offsets + blockIdx.x * most;
  uint8_t* covered = p.covered + blockIdx.x * p.n;
  for (int64_t at = threadIdx.x; at < words * 32; at += kWalkers) {
    const uint32_t word = __ballot_sync(0xffffffffu, at < p.n && distances[at]);
    if (threadIdx.x % 32 == 0) bits[at >> 5] = word;
  }
  for (int64_t at = threadIdx.x; at < p.n; at += kWalkers) covered[at] = 0;
  __shared__ int found;
  __syncthreads();
  if (threadIdx.x == 0) {
    int count = 0;
    int64_t reach = 0;  // keys up to this far before the first query lie in tiles
    while (true) {
      const int64_t distance = next_set(bits, words, reach + 1);
      if (distance >= p.n) break;
      reach = max(reach + 1, distance - p.q_tile + 1) + p.tile - 1;
      offsets[count++] = int32_t(reach);
    }
    found = count;
    p.offset_counts[blockIdx.x] = count;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < int64_t(found) * p.tile; i += kWalkers) {
    const int64_t at = offsets[i / p.tile] - i % p.tile;
    if (at < p.n) covered[at] = 1;
  }
}

/// What a row has of its head's tiles.
struct Row {
  int64_t first;  ///< first query
  int whole;      ///< tiles that begin inside the prompt
  int lead;       ///< first keys, of the tile that would begin before it
  int diagonal;   ///< tiles of the row's own queries
};
__device__ Row find_row(const SlashCoverArgs& p) {
  const int64_t first = int64_t(blockIdx.x) * p.q_tile, most = p.n / p.tile + 2;
  const int32_t* offsets = p.offsets + blockIdx.y * most;
  const int count = p.offset_counts[blockIdx.y];
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (offsets[middle] <= first)
      low = middle + 1;
    else
      high = middle;
  }
  const int64_t lead = low < count ? max(int64_t(0), first - offsets[low] + p.tile) : 0;
  const int64_t queries = min(p.n - first, int64_t(p.q_tile));
  return {first, low, int(lead), int((queries + p.tile - 1) / p.tile)};
}
/// Whether the row needs its head's chosen column number i on its own.
__device__ __forceinline__ bool stands_alone(const SlashCoverArgs& p, const Row& row, const int32_t* columns,
                                             const uint8_t* covered, int i, int count) {
  return i < count && columns[i] >= row.lead && columns[i] < row.first && !covered[row.first - columns[i]];
}

__global__ void __launch_bounds__(kThreads) counts_kernel(const SlashCoverArgs p, int32_t* tiles, int32_t* columns) {
  const Row row = find_row(p);
  const int32_t* list = p.columns + blockIdx.y * p.column_stride;
  const uint8_t* covered = p.covered + blockIdx.y * p.n;
  const int count = p.column_counts[blockIdx.y * p.count_stride];
  int alone = 0;
  for (int start = 0; start < count; start += kThreads)
    alone += __syncthreads_count(stands_alone(p, row, list, covered, start + int(threadIdx.x), count));
  if (threadIdx.x) return;
  const int64_t at = blockIdx.y * int64_t(gridDim.x + 1) + blockIdx.x;
  if (blockIdx.x == 0) tiles[at] = columns[at] = 0;
  tiles[at + 1] = row.whole + row.diagonal;
  columns[at + 1] = row.lead + alone;
}

__global__ void __launch_bounds__(kThreads)
    lists_kernel(const SlashCoverArgs p, const int32_t* tile_ptr, const int32_t* col_ptr, int32_t* tile_idx, int64_t tile_stride,
                 int32_t* col_idx, int64_t col_stride) {
  __shared__ int warp_count[kThreads / 32];
  const Row row = find_row(p);
  const int64_t at = blockIdx.y * int64_t(gridDim.x + 1) + blockIdx.x;
  const int32_t* offsets = p.offsets + blockIdx.y * (p.n / p.tile + 2);
  int32_t* tiles = tile_idx + blockIdx.y * tile_stride + tile_ptr[at];
  for (int i = threadIdx.x; i < row.whole; i += kThreads) tiles[i] = int32_t(row.first - offsets[row.whole - 1 - i]);
  for (int i = threadIdx.x; i < row.diagonal; i += kThreads) tiles[row.whole + i] = int32_t(row.first + i * p.tile);

  int32_t* out = col_idx + blockIdx.y * col_stride + col_ptr[at];
  for (int i = threadIdx.x; i < row.lead; i += kThreads) out[i] = i;
  out += row.lead;
  const int32_t* list = p.columns + blockIdx.y * p.column_stride;
  const uint8_t* covered = p.covered + blockIdx.y * p.n;
  const int count = p.column_counts[blockIdx.y * p.count_stride], warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  for (int start = 0; start < count; start += kThreads) {
    const int i = start + int(threadIdx.x);
    const bool mine = stands_alone(p, row, list, covered, i, count);
    const unsigned others = __ballot_sync(0xffffffffu, mine);
    if (lane == 0) warp_count[warp] = __popc(others);
    __syncthreads();
    int place = __popc(others & ((1u << lane) - 1)), all = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) place += warp_count[w];
      all += warp_count[w];
    }
    if (mine) out[place] = list[i];
    out += all;
    __syncthreads();
  }
}

Result launched() {
  if (const cudaError_t rc = cudaGetLastError(); rc != cudaSuccess) return {Status::device_error, cudaGetErrorString(rc)};
  return {};
}
dim3 rows_of(const SlashCoverArgs& p) { return {unsigned((p.n + p.q_tile - 1) / p.q_tile), unsigned(p.heads)}; }

}  // namespace
}  // namespace cuda

int64_t slash_cover_most_tokens() { return cuda::kMostTokens; }

Result slash_cover_counts_cuda(const SlashCoverArgs& p, int32_t* tiles, int32_t* columns, void* stream) {
  if (p.heads < 1 || p.heads > 65535 || p.n < 1 || p.q_tile < 1 || p.tile < 1)
    return {Status::bad_argument, "slash cover: empty, or more than 65535 heads"};
  if (p.n > cuda::kMostTokens) return {Status::unsupported, "slash cover: too many tokens"};
  const auto s = static_cast<cudaStream_t>(stream);
  const size_t bytes = size_t((p.n + 31) / 32 * 4);
  if (const cudaError_t rc = cudaFuncSetAttribute(cuda::offsets_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
      rc != cudaSuccess) {
    cudaGetLastError();  // a chip with less shared memory
    return {Status::unsupported, "slash cover: too many tokens for this chip"};
  }
  cuda::offsets_kernel<<<unsigned(p.heads), cuda::kWalkers, bytes, s>>>(p);
  cuda::counts_kernel<<<cuda::rows_of(p), cuda::kThreads, 0, s>>>(p, tiles, columns);
  return cuda::launched();
}

Result slash_cover_lists_cuda(const SlashCoverArgs& p, const int32_t* tile_ptr, const int32_t* col_ptr, int32_t* tile_idx,
                              int64_t tile_stride, int32_t* col_idx, int64_t col_stride, void* stream) {
  cuda::lists_kernel<<<cuda::rows_of(p), cuda::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      p, tile_ptr, col_ptr, tile_idx, tile_stride, col_idx, col_stride);
  return cuda::launched();
}

}  // namespace prefill::kernels
