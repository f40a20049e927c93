// Block-sparse attention for Hopper. One thread block per multiprocessor stays resident and draws work items: 128
// query rows (of one head, or of several heads that share keys). A producer warpgroup copies Q, K and V tiles
// into rings in shared memory; two consumer warpgroups own 64 rows each and alternate, so that one's softmax
// runs under the other's matrix products. Within a warpgroup the scores of the next tile are computed while
// those of the last one are multiplied by V, the order of FlashAttention-3 (arXiv:2407.08608, algorithm 2).
#pragma once
#include "kernels/cuda/attend_params.h"
#include "kernels/cuda/attend_sm90.h"
#include "kernels/cuda/column_gather_sm90.cuh"
#include "kernels/cuda/key_stream_sm90.cuh"
#include "kernels/cuda/sm90_primitives.cuh"
#include "kernels/cuda/softmax.cuh"

namespace prefill::kernels::cuda {

template <int D, class T>
struct Consumer {
  using Layout = SharedLayout<D>;
  float o[D / 2];    // 2 rows x D/4 columns of this thread
  float s[64];       // 2 rows x 32 keys
  uint32_t p[32];    // probabilities of the stage before, packed
  OnlineSoftmax softmax;
  int q_pos[2];      // position of the thread's two rows

  /// s = Q K^T of one stage. Moving a descriptor by n bytes is adding n / 16.
  __device__ __forceinline__ void issue_scores(uint64_t q, uint64_t k) {
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
      wgmma_ss_n128<T>(s, q + ((i / 4) * (64 * 128) + (i % 4) * 32) / 16,
                       k + ((i / 4) * (kStageKeys * 128) + (i % 4) * 32) / 16, i != 0);
    wgmma_commit();
  }
  /// o += P V of one stage.
  __device__ __forceinline__ void issue_values(uint64_t v) {
#pragma unroll
    for (int i = 0; i < kStageKeys / 16; ++i)
      wgmma_rs<T>(o, p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3], v + i * (16 * 128) / 16);
    wgmma_commit();
  }
  __device__ __forceinline__ void pack_probabilities() {
#pragma unroll
    for (int i = 0; i < 32; ++i) p[i] = pack2<T>(s[2 * i], s[2 * i + 1]);
  }
  __device__ __forceinline__ void rescale(const float (&scale)[2]) {
    if (!__any_sync(0xffffffffu, scale[0] != 1.f || scale[1] != 1.f)) return;
#pragma unroll
    for (int i = 0; i < D / 2; ++i) o[i] *= scale[(i >> 1) & 1];
  }
};

template <int D, class T>
__device__ __forceinline__ void load_state(Consumer<D, T>& c, const AttendParams& p, const ItemInfo& item, int wg, int row0,
                                           int lane) {
  c.softmax.reset();
#pragma unroll
  for (int i = 0; i < D / 2; ++i) c.o[i] = 0.f;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int row = row0 + 8 * r, box = wg * 8 + (row >> p.row_box_shift), head = item.head[box];
    c.q_pos[r] = item.query[box] + (row & (p.row_box - 1));
    if (p.plan.resume_max && head >= 0 && c.q_pos[r] < p.seq_len) {
      int64_t at = int64_t(head) * p.seq_len + c.q_pos[r];
      c.softmax.max[r] = p.plan.resume_max[at] / p.scale;
      c.softmax.sum[r] = (lane & 3) == 0 ? p.plan.resume_sum[at] : 0.f;  // the quad's sums are added at the end
      const float* acc = p.plan.resume_acc + at * D + 2 * (lane & 3);
#pragma unroll
      for (int j = 0; j < D / 8; ++j) {
        float2 x = *reinterpret_cast<const float2*>(acc + 8 * j);
        c.o[4 * j + 2 * r] = x.x, c.o[4 * j + 2 * r + 1] = x.y;
      }
    }
  }
}

/// Hidden keys get a score of minus infinity.
template <int D, class T>
__device__ __forceinline__ void mask_scores(Consumer<D, T>& c, const AttendParams& p, const StageMeta& meta, int wg,
                                            const ItemInfo& item, int lane) {
  const int kind = meta.flags & kStageKinds;
  if (kind == kStagePooled) {
    const int* at = meta.at + wg * 8;
#pragma unroll
    for (int w = 0; w < 4; ++w) {  // 32 blocks each
      const int valid = at[5] - at[4] - 32 * w;
      unsigned hidden = at[w] | (valid <= 0 ? ~0u : valid >= 32 ? 0u : ~0u << valid);
      hidden >>= 2 * (lane & 3);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        float& x = c.s[16 * w + i];
        x = hidden & (1u << (8 * (i / 4) + (i & 1))) ? -INFINITY : x + p.pooled_bias;
      }
    }
    return;
  }
  if (kind == kStageColumns) {  // the last stage of a list is not full
    const int count = meta.at[1] - 2 * (lane & 3);
#pragma unroll
    for (int i = 0; i < 64; ++i)
      if (8 * (i / 4) + (i & 1) >= count) c.s[i] = -INFINITY;
    return;
  }
  const int* start = meta.at + wg * 8;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    const int key = start[(8 * j) >> p.key_box_shift] + ((8 * j) & (p.key_box - 1)) + 2 * (lane & 3);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (key + (e & 1) > c.q_pos[e >> 1]) c.s[4 * j + e] = -INFINITY;
  }
  if (item.local >= p.seq_len) return;
  // window route: the gap between sink and window is hidden, too
  int gap[2];
#pragma unroll
  for (int r = 0; r < 2; ++r)
    gap[r] = c.q_pos[r] >= item.last_start ? 0 : max(0, c.q_pos[r] - item.local + 1 - item.sink);
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    const int key = start[(8 * j) >> p.key_box_shift] + ((8 * j) & (p.key_box - 1)) + 2 * (lane & 3) - item.sink;
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (unsigned(key + (e & 1)) < unsigned(gap[e >> 1])) c.s[4 * j + e] = -INFINITY;
  }
}

template <int D, class T>
__device__ __forceinline__ void store_result(Consumer<D, T>& c, const AttendParams& p, const ItemInfo& item, int wg, int row0,
                                             int lane, uint8_t* tile, int warp_in_group) {
  c.softmax.reduce();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int box = wg * 8 + ((row0 + 8 * r) >> p.row_box_shift), head = item.head[box];
    if (head < 0 || c.q_pos[r] >= p.seq_len) continue;
    int64_t at = int64_t(head) * p.seq_len + c.q_pos[r];
    if ((lane & 3) == 0) {
      float row_max = c.softmax.max[r] * p.scale;
      if (p.result.lse) p.result.lse[at] = row_max + logf(c.softmax.sum[r]);
      if (p.result.state_max) p.result.state_max[at] = row_max;
      if (p.result.state_sum) p.result.state_sum[at] = c.softmax.sum[r];
    }
    if (p.result.state_acc) {
      float* acc = p.result.state_acc + at * D + 2 * (lane & 3);
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
        *reinterpret_cast<float2*>(acc + 8 * j) = make_float2(c.o[4 * j + 2 * r], c.o[4 * j + 2 * r + 1]);
    }
  }
  if (!p.write_out) return;
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) inverse[r] = c.softmax.sum[r] > 0.f ? __frcp_rn(c.softmax.sum[r]) : 0.f;
  // the warpgroup's 64 x D result leaves by TMA, in the swizzle of the inputs
  const uint32_t base = smem_address(tile);
  int row = warp_in_group * 16 + (lane & 7) + ((lane >> 3) & 1) * 8;
#pragma unroll
  for (int j = 0; j < D / 8; j += 2) {
    uint32_t r[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      r[i] = pack2<T>(c.o[4 * j + 2 * i] * inverse[i & 1], c.o[4 * j + 2 * i + 1] * inverse[i & 1]);
    int column = j + (lane >> 4);  // in units of 8 elements
    store_matrix_x4(base + (column >> 3) * (64 * 128) + row * 128 + (((column & 7) ^ (row & 7)) << 4), r[0], r[1], r[2],
                    r[3]);
  }
}

/// One consumer warpgroup: rows [64 wg, 64 wg + 64) of every item of this block. The loop runs over stages and does
/// not stop between items: the first scores of an item are computed together with the last P V of the one before.
template <int D, class T>
__device__ __forceinline__ void consume(const AttendParams& p, SharedLayout<D>& shared, int wg) {
  using Layout = SharedLayout<D>;
  constexpr int kStages = Layout::kStages;
  const int thread = threadIdx.x & 127, lane = threadIdx.x & 31, warp = thread >> 5;
  const int row0 = warp * 16 + (lane >> 2);
  const uint64_t q_tile = matrix_descriptor(smem_address(shared.q) + wg * (64 * D * 2), 16, 1024);
  const uint64_t k_tile = matrix_descriptor(smem_address(shared.k), 16, 1024);
  const uint64_t v_tile = matrix_descriptor(smem_address(shared.v), kStageKeys * 128, 1024);
  uint8_t* out_tile = shared.out + wg * (64 * D * 2);
  auto take_turn = [&] { named_barrier_sync(kTurnBarrier + wg, 256); };
  auto pass_turn = [&] { named_barrier_arrive(kTurnBarrier + 1 - wg, 256); };
  if (wg == 1) pass_turn();  // the first warpgroup begins
  const auto release = [](uint64_t* bar) { mbarrier_arrive(bar); };  // by every thread: faster than by an elected one
  Consumer<D, T> c;
  uint32_t stage = 0, items = 0;  // seen so far
  uint32_t pending = 0;           // stage whose probabilities wait in c.p
  bool has_pending = false, first = true, gathered = false;  // gathered: the pending stage holds columns
  auto keys = [&](uint32_t s) { return k_tile + (s % kStages) * (Layout::kStageBytes / 16); };
  auto values = [&](uint32_t s) { return v_tile + (s % kStages) * (Layout::kStageBytes / 16); };
  auto wait_values = [&](uint32_t s) {
    mbarrier_wait(&shared.v_full[s % kStages], (s / kStages) & 1);
    fence_async_proxy_if(gathered);  // cp.async wrote them, not the copy engine
  };
  auto finish_pending = [&] {
    wait_values(pending);
    pin(c.o);
    wgmma_fence();
    c.issue_values(values(pending));
    wgmma_wait<0>();
    pin(c.o);
    release(&shared.v_empty[pending % kStages]);
    has_pending = false;
  };
  // c holds the finished result of item n
  auto store_item = [&](uint32_t n) {
    const ItemInfo& item = shared.items[n % kItemRing];
    if (thread == 0) tma_store_wait_read();  // of the item before
    named_barrier_sync(kGroupBarrier + wg, 128);
    store_result(c, p, item, wg, row0, lane, out_tile, warp);
    fence_async_proxy();
    named_barrier_sync(kGroupBarrier + wg, 128);
    if (thread == 0 && p.write_out) {
      for (int i = 0; i < 64 >> p.row_box_shift; ++i) {
        const int head = item.head[wg * 8 + i], query = item.query[wg * 8 + i];
        if (head < 0) continue;
#pragma unroll
        for (int half = 0; half < D / 64; ++half)
          tma_store(&p.out, out_tile + half * (64 * 128) + i * p.row_box * 128, half * 64, query, head);
      }
      tma_store_commit();
    }
    if (lane == 0) mbarrier_arrive(&shared.item_empty[n % kItemRing]);
  };
  for (;; ++stage) {
    const int slot = items % Layout::kQuerySlots;  // of the current item, number `items`
    const ItemInfo& item = shared.items[items % kItemRing];
    if (first) {
      mbarrier_wait(&shared.q_full[slot], (items / Layout::kQuerySlots) & 1);
      if (!item.valid) break;
    }
    const uint32_t at = stage % kStages, parity = (stage / kStages) & 1;
    mbarrier_wait(&shared.k_full[at], parity);
    const StageMeta& meta = shared.meta[stage % kMetaRing];
    const int flags = meta.flags;
    const bool last = flags & kStageLast, columns = p.gathers && (flags & kStageKinds) == kStageColumns;
    fence_async_proxy_if(columns);
    if (flags & (kStageSkip << wg)) {
      take_turn();
      pass_turn();
      if (has_pending) finish_pending();
      if (first) {
        if (items > 0) store_item(items - 1);
        load_state(c, p, item, wg, row0, lane);
      }
      wait_values(stage);
      release(&shared.k_empty[at]);
      release(&shared.v_empty[at]);
      if (last) release(&shared.q_empty[slot]);
    } else {
      const uint64_t q = q_tile + slot * (Layout::kQueryBytes / 16);
      float scale[2];
      auto softmax_of_stage = [&] {
        if (flags & (kStageMask << wg)) mask_scores(c, p, meta, wg, item, lane);
        c.softmax.update(c.s, p.scale_log2, scale);
      };
      take_turn();
      pin(c.s);
      if (!first && has_pending) {
        pin(c.o);
        wgmma_fence();
        c.issue_scores(q, keys(stage));
        wait_values(pending);
        wgmma_fence();
        c.issue_values(values(pending));
        pass_turn();
        wgmma_wait<1>();
        pin(c.s);
        release(&shared.k_empty[at]);
        if (last) release(&shared.q_empty[slot]);
        softmax_of_stage();
        hold_until(c.softmax.sum[0] + c.softmax.sum[1]);
        wgmma_wait<0>();
        pin(c.o);
        release(&shared.v_empty[pending % kStages]);
      } else {
        if (has_pending) {
          pin(c.o);
          wgmma_fence();
          c.issue_scores(q, keys(stage));
          wait_values(pending);
          wgmma_fence();
          c.issue_values(values(pending));
          pass_turn();
          wgmma_wait<0>();
          pin(c.o);
          release(&shared.v_empty[pending % kStages]);
        } else {
          wgmma_fence();
          c.issue_scores(q, keys(stage));
          pass_turn();
          wgmma_wait<0>();
        }
        pin(c.s);
        release(&shared.k_empty[at]);
        if (last) release(&shared.q_empty[slot]);
        if (first) {
          if (items > 0) store_item(items - 1);
          load_state(c, p, item, wg, row0, lane);
        }
        softmax_of_stage();
      }
      c.pack_probabilities();
      c.rescale(scale);
      has_pending = true;
      pending = stage, gathered = columns;
    }
    first = last;
    if (last) ++items;
  }
  if (has_pending) finish_pending();
  if (items > 0) store_item(items - 1);
  if (thread == 0) tma_store_wait_read();
}

template <int D, class T>
__global__ void __launch_bounds__(384, 1) attend_tiles_kernel(const __grid_constant__ AttendParams p) {
  extern __shared__ __align__(1024) uint8_t raw[];  // the swizzle needs the alignment
  auto& shared = *reinterpret_cast<SharedLayout<D>*>(raw);
  const int group = threadIdx.x / 128;
  if (threadIdx.x == 0) {
    if (smem_address(raw) % 1024) __trap();
    init_barriers(shared, p.gathers);
  }
  __syncthreads();
  if (group == 0) {
    set_registers_down<56>();
    if (threadIdx.x < 32)
      plan_items(p, shared);
    else if (threadIdx.x < 64)
      load_stages(p, shared);
    else if (p.gathers)
      gather_columns<D, T>(p, shared, threadIdx.x / 32 - 2);
  } else {
    set_registers_up<224>();
    consume<D, T>(p, shared, group - 1);
  }
}

template <int D, class T>
cudaError_t launch_attend_tiles(const AttendParams& p, int blocks, cudaStream_t stream) {
  constexpr int kBytes = sizeof(SharedLayout<D>);
  static_assert(kBytes <= 227 * 1024);
  const auto raised =
      cudaFuncSetAttribute(attend_tiles_kernel<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (raised != cudaSuccess) return raised;
  attend_tiles_kernel<D, T><<<blocks, 384, kBytes, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace prefill::kernels::cuda
