// Attention over sparse plans with mma.sync, for every GPU from Ampere on. One thread block computes half a work item
// (64 rows); keys arrive by cp.async in batches of 64, two in flight.
#include "kernels/cuda/attend_mma.h"
#include "kernels/cuda/key_batches.cuh"
#include "kernels/cuda/softmax.cuh"

namespace prefill::kernels::cuda {
namespace {

template <int D>
struct alignas(128) MmaShared {
  uint8_t q[kMmaRows * D * 2], k[2][kMmaKeys * D * 2], v[2][kMmaKeys * D * 2];
  KeyBatch batch[2];
  ItemInfo item;
};

template <int D, class T>
__device__ __forceinline__ void load_batch(const AttendParams& p, MmaShared<D>& shared, int slot) {
  const KeyBatch& batch = shared.batch[slot];
  const uint32_t keys = smem_address(shared.k[slot]), values = smem_address(shared.v[slot]);
  const int64_t kv = shared.item.kv_head;
  const T *k, *v;
  int64_t k_row, v_row;
  if (batch.pooled) {
    k = static_cast<const T*>(p.plan.pooled_k) + kv * p.pooled_blocks * D, k_row = D;
    v = static_cast<const T*>(p.plan.pooled_v) + kv * p.pooled_blocks * D, v_row = D;
  } else {
    k = static_cast<const T*>(p.qkv.k) + kv * p.qkv.k_head_stride, k_row = p.qkv.k_row_stride;
    v = static_cast<const T*>(p.qkv.v) + kv * p.qkv.v_head_stride, v_row = p.qkv.v_row_stride;
  }
  for (int i = threadIdx.x; i < kMmaKeys * D / 8; i += kMmaThreads) {
    const int key = i / (D / 8), column = i % (D / 8), row = batch.row[key];
    copy_async_16(piece<D>(keys, key, column), k + max(row, 0) * k_row + column * 8, row >= 0);
    copy_async_16(piece<D>(values, key, column), v + max(row, 0) * v_row + column * 8, row >= 0);
  }
  copy_async_commit();
}

template <int D, class T>
__global__ void __launch_bounds__(kMmaThreads) attend_mma_kernel(const __grid_constant__ AttendParams p) {
  extern __shared__ __align__(128) uint8_t raw[];
  auto& shared = *reinterpret_cast<MmaShared<D>*>(raw);
  const int half = blockIdx.x & 1, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const Item item = decode_item(p, blockIdx.x >> 1, shared.item, warp == 0 ? lane : 32);  // warp 0 publishes
  if (item.last[half] < item.first[half]) return;
  __syncthreads();
  const ItemInfo& info = shared.item;
  KeyBatches batches(p, item, info, half, lane);
  if (warp == 0) batches.next(shared.batch[0]);
  const uint32_t q_tile = smem_address(shared.q);
  for (int i = threadIdx.x; i < kMmaRows * D / 8; i += kMmaThreads) {
    const int row = i / (D / 8), column = i % (D / 8), box = half * 8 + (row >> p.row_box_shift);
    const int head = info.head[box], query = info.query[box] + (row & (p.row_box - 1));
    const bool real = head >= 0 && query < p.seq_len;
    const T* q = static_cast<const T*>(p.qkv.q) + (real ? head * p.qkv.q_head_stride + query * p.qkv.q_row_stride : 0);
    copy_async_16(piece<D>(q_tile, row, column), q + column * 8, real);
  }
  __syncthreads();
  if (shared.batch[0].valid) load_batch<D, T>(p, shared, 0);  // commits Q, too
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  uint32_t q[D / 16][4];
  load_queries<D>(q, q_tile, warp, lane);

  float o[D / 2], s[32];
  OnlineSoftmax softmax;
  softmax.reset();
#pragma unroll
  for (int i = 0; i < D / 2; ++i) o[i] = 0.f;
  int position[2], gap[2];
  int64_t at[2];  // row of [Hq, N] arrays, negative: none
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = warp * 16 + (lane >> 2) + 8 * r, box = half * 8 + (row >> p.row_box_shift), head = info.head[box];
    position[r] = info.query[box] + (row & (p.row_box - 1));
    at[r] = head >= 0 && position[r] < p.seq_len ? int64_t(head) * p.seq_len + position[r] : -1;
    gap[r] = position[r] >= info.last_start ? 0 : max(0, position[r] - info.local + 1 - info.sink);
    if (p.plan.resume_max && at[r] >= 0) {
      softmax.max[r] = p.plan.resume_max[at[r]] / p.scale;
      softmax.sum[r] = (lane & 3) == 0 ? p.plan.resume_sum[at[r]] : 0.f;
#pragma unroll
      for (int j = 0; j < D / 8; ++j) {
        const float2 x = *reinterpret_cast<const float2*>(p.plan.resume_acc + at[r] * D + 8 * j + 2 * (lane & 3));
        o[4 * j + 2 * r] = x.x, o[4 * j + 2 * r + 1] = x.y;
      }
    }
  }
  for (int slot = 0; shared.batch[slot].valid; slot ^= 1) {
    if (warp == 0) batches.next(shared.batch[slot ^ 1]);
    __syncthreads();
    if (shared.batch[slot ^ 1].valid) load_batch<D, T>(p, shared, slot ^ 1);
    const KeyBatch& batch = shared.batch[slot];
    multiply_keys<D, T>(s, q, smem_address(shared.k[slot]), lane);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int k = batch.position[8 * (i / 4) + 2 * (lane & 3) + (i & 1)], r = (i >> 1) & 1;
      if (batch.pooled) s[i] += p.pooled_bias;
      if (k > position[r] || unsigned(k - info.sink) < unsigned(gap[r])) s[i] = -INFINITY;
    }
    float scale[2];
    softmax.update(s, p.scale_log2, scale);
#pragma unroll
    for (int i = 0; i < D / 2; ++i) o[i] *= scale[(i >> 1) & 1];
    multiply_values<D, T>(o, s, smem_address(shared.v[slot]), lane);
    copy_async_wait<0>();
    __syncthreads();
  }
  softmax.reduce();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (at[r] < 0) continue;
    const float row_max = softmax.max[r] * p.scale;
    if ((lane & 3) == 0) {
      if (p.result.lse) p.result.lse[at[r]] = row_max + logf(softmax.sum[r]);
      if (p.result.state_max) p.result.state_max[at[r]] = row_max;
      if (p.result.state_sum) p.result.state_sum[at[r]] = softmax.sum[r];
    }
    const float inverse = softmax.sum[r] > 0.f ? 1.f / softmax.sum[r] : 0.f;
    const int64_t head = at[r] / p.seq_len;
    T* out = static_cast<T*>(p.result.out) + (p.write_out ? head * p.result.out_head_stride + position[r] * p.result.out_row_stride : 0);
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      const int column = 8 * j + 2 * (lane & 3);
      const float x = o[4 * j + 2 * r], y = o[4 * j + 2 * r + 1];
      if (p.write_out) *reinterpret_cast<uint32_t*>(out + column) = pack2<T>(x * inverse, y * inverse);
      if (p.result.state_acc) *reinterpret_cast<float2*>(p.result.state_acc + at[r] * D + column) = make_float2(x, y);
    }
  }
}

/// One block per wanted head and plan row: a second pass over Q K^T with the known log-sum-exp.
template <int D, class T>
__global__ void __launch_bounds__(kMmaThreads) tile_mean_kernel(const __grid_constant__ AttendParams p, const HeadList wanted) {
  __shared__ __align__(128) uint8_t q_bytes[kMmaRows * D * 2], k_bytes[kMmaKeys * D * 2];
  __shared__ float partial[4];
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int64_t row = gridDim.x - 1 - blockIdx.x, rows = gridDim.x;
  const int head = wanted.head[blockIdx.y], n = p.seq_len, kv = head / (p.qkv.q_heads / p.qkv.kv_heads);
  const RouteView route = wanted.route[blockIdx.y];
  const int64_t key_tiles = (n + p.plan.k_tile - 1) / p.plan.k_tile;
  float* mean = p.result.tile_mean + (blockIdx.y * rows + row) * key_tiles;
  const T* q_head = static_cast<const T*>(p.qkv.q) + head * p.qkv.q_head_stride;
  const T* k_head = static_cast<const T*>(p.qkv.k) + kv * p.qkv.k_head_stride;
  const int first = int(row * p.plan.q_tile), end = min(n, first + p.plan.q_tile);
  const WindowView window = route.kind == 1 ? p.windows[route.index] : WindowView{0, n, 0};
  int begin_tile = 0, end_tile = (end - 1) / p.plan.k_tile + 1;
  const int32_t* ids = nullptr;
  if (route.kind == 2) {
    const int32_t* ptr = p.plan.tile_ptr + route.index * p.plan.tile_ptr_stride + row;
    ids = p.plan.tile_idx + route.index * p.plan.tile_idx_stride;
    begin_tile = ptr[0], end_tile = ptr[1];
  }
  for (int64_t t = threadIdx.x; t < key_tiles; t += kMmaThreads) mean[t] = 0.f;
  const uint32_t q_tile = smem_address(q_bytes), k_tile = smem_address(k_bytes);
  for (int query = first; query < end; query += kMmaRows) {
    __syncthreads();
    for (int i = threadIdx.x; i < kMmaRows * D / 8; i += kMmaThreads) {
      const int r = i / (D / 8), column = i % (D / 8);
      copy_async_16(piece<D>(q_tile, r, column), q_head + int64_t(min(query + r, n - 1)) * p.qkv.q_row_stride + column * 8, query + r < end);
    }
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    uint32_t q[D / 16][4];
    load_queries<D>(q, q_tile, warp, lane);
    float lse[2];
    int position[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      position[r] = query + warp * 16 + (lane >> 2) + 8 * r;
      lse[r] = position[r] < end ? p.result.lse[int64_t(head) * n + position[r]] * 1.4426950408889634f : INFINITY;
    }
    for (int index = begin_tile; index < end_tile; ++index) {
      const int tile = ids ? ids[index] : index, tile_start = tile * p.plan.k_tile, tile_end = min(n, tile_start + p.plan.k_tile);
      float total = 0.f;
      for (int start = tile_start; start < tile_end; start += kMmaKeys) {
        __syncthreads();
        for (int i = threadIdx.x; i < kMmaKeys * D / 8; i += kMmaThreads) {
          const int key = i / (D / 8), column = i % (D / 8);
          copy_async_16(piece<D>(k_tile, key, column), k_head + int64_t(min(start + key, n - 1)) * p.qkv.k_row_stride + column * 8,
                        start + key < tile_end);
        }
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();
        float s[32];
        multiply_keys<D, T>(s, q, k_tile, lane);
#pragma unroll
        for (int i = 0; i < 32; ++i) {
          const int key = start + 8 * (i / 4) + 2 * (lane & 3) + (i & 1), at = position[(i >> 1) & 1];
          const bool visible = key < tile_end && key <= at &&
                               (key < window.sink || at - key < window.local || at >= n - window.last);
          if (visible) total += exp2_fast(s[i] * p.scale_log2 - lse[(i >> 1) & 1]);
        }
      }
#pragma unroll
      for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);
      if (lane == 0) partial[warp] = total;
      __syncthreads();
      if (threadIdx.x == 0) mean[tile] += (partial[0] + partial[1] + partial[2] + partial[3]) / float(end - first);
    }
  }
}

template <int D, class T>
cudaError_t launch(const AttendParams& p, cudaStream_t stream) {
  constexpr int kBytes = sizeof(MmaShared<D>);
  if (auto rc = cudaFuncSetAttribute(attend_mma_kernel<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
      rc != cudaSuccess)
    return rc;
  attend_mma_kernel<D, T><<<2 * p.work.items, kMmaThreads, kBytes, stream>>>(p);
  return cudaGetLastError();
}

template <int D, class T>
cudaError_t launch_means(const AttendParams& p, const HeadList& wanted, cudaStream_t stream) {
  const dim3 grid(unsigned((p.seq_len + p.plan.q_tile - 1) / p.plan.q_tile), wanted.count);
  tile_mean_kernel<D, T><<<grid, kMmaThreads, 0, stream>>>(p, wanted);
  return cudaGetLastError();
}

}  // namespace

cudaError_t attend_mma(const AttendParams& p, cudaStream_t stream) {
  if (p.qkv.dtype == Dtype::f16)
    return p.head_dim == 64 ? launch<64, __half>(p, stream) : launch<128, __half>(p, stream);
  return p.head_dim == 64 ? launch<64, __nv_bfloat16>(p, stream) : launch<128, __nv_bfloat16>(p, stream);
}

cudaError_t tile_means(const AttendParams& p, const HeadList& wanted, cudaStream_t stream) {
  if (p.qkv.dtype == Dtype::f16)
    return p.head_dim == 64 ? launch_means<64, __half>(p, wanted, stream) : launch_means<128, __half>(p, wanted, stream);
  return p.head_dim == 64 ? launch_means<64, __nv_bfloat16>(p, wanted, stream)
                          : launch_means<128, __nv_bfloat16>(p, wanted, stream);
}

}  // namespace prefill::kernels::cuda
