// The producing side of the Hopper attention kernel. The planner draws work items, walks their key lists
// and writes what every stage holds, several stages ahead, so that the latency of the index reads stays hidden; the
// loader turns that into bulk copies.
#pragma once
#include "kernels/cuda/attend_params.h"
#include "kernels/cuda/key_cursor.cuh"
#include "kernels/cuda/shared_layout_sm90.cuh"
#include "kernels/cuda/work_item.cuh"

namespace prefill::kernels::cuda {

template <int D>
struct Planner {
  using Layout = SharedLayout<D>;
  const AttendParams& p;
  Layout& shared;
  const int lane;
  uint32_t stage = 0;
  bool held = false, first = true;  // the newest stage is held back until it is known whether it is the item's last
  int held_at = 0, held_flags = 0;

  /// Lane i < 16 brings StageMeta::at[i].
  __device__ __forceinline__ void push(int at, int flags) {
    if (held) emit(0);
    held = true, held_at = at, held_flags = flags;
  }
  __device__ __forceinline__ void finish_item() {
    if (!held) push(kNever, kStageTiles | kStageSkip | kStageSkip << 1);  // no keys at all
    emit(kStageLast);
    held = false, first = true;
  }
  __device__ __forceinline__ void emit(int more) {
    const uint32_t ring = stage % kMetaRing;
    mbarrier_wait(&shared.meta_empty[ring], ((stage / kMetaRing) & 1) ^ 1);
    StageMeta& meta = shared.meta[ring];
    if (lane < 16) meta.at[lane] = held_at;
    if (lane == 0) meta.flags = held_flags | more | (first ? kStageFirst : 0);
    first = false;
    mbarrier_arrive(&shared.meta_full[ring]);  // every lane for what it wrote, here and in ItemInfo
    ++stage;
  }

  /// All key tiles of an item.
  __device__ __forceinline__ void tiles(const Item& item, const ItemInfo& info) {
    if (item.last[0] < item.first[0] && item.last[1] < item.first[1]) return;  // past the end of the sequence
    const bool one_list = item.kind != 2 || item.rows[0] == item.rows[1] || item.last[1] < item.first[1];
    const int last_query = max(item.last[0], item.last[1]);
    KeyCursor a, b;
    if (item.kind == 2) {
      const int32_t* ptr = p.plan.tile_ptr + item.index * p.plan.tile_ptr_stride;
      const int32_t* ids = p.plan.tile_idx + item.index * p.plan.tile_idx_stride;
      const int row = item.rows[0];
      a.start_list(ids, ptr[row], ptr[row + 1], p.plan.k_step, p.plan.k_tile, p.key_box, one_list ? last_query : item.last[0],
                   lane);
      if (!one_list)
        b.start_list(ids, ptr[row + 1], ptr[row + 2], p.plan.k_step, p.plan.k_tile, p.key_box, item.last[1], lane);
    } else {
      const int end = (last_query >> p.key_box_shift) + 1;
      int sink_end = 0, local_begin = 0;
      if (item.kind == 1 && last_query < info.last_start) {
        sink_end = min(end, (info.sink + p.key_box - 1) >> p.key_box_shift);
        local_begin = max(sink_end, max(0, item.first[0] - info.local + 1) >> p.key_box_shift);
      }
      a.start_ranges(sink_end, local_begin, end, p.key_box);
    }
    const bool window = item.kind == 1;
    const int boxes = kStageKeys >> p.key_box_shift;
    while (a.key >= 0 || (!one_list && b.key >= 0)) {
      int key_start = kNever;
      bool any[2] = {false, false}, mask[2] = {false, false};
      for (int i = 0; i < boxes; ++i) {
        const int start = one_list ? a.key : max(a.key, b.key);
#pragma unroll
        for (int wg = 0; wg < 2; ++wg) {
          bool mine = start >= 0 && item.last[wg] >= item.first[wg] && start <= item.last[wg] &&
                      (one_list || (wg == 0 ? a.key : b.key) == start);
          bool whole = start + p.key_box - 1 <= item.first[wg];
          if (window)
            whole = whole && (start + p.key_box <= info.sink || item.last[wg] - start < info.local ||
                              item.first[wg] >= info.last_start);
          any[wg] = any[wg] || mine;
          mask[wg] = mask[wg] || !mine || !whole;
          if (mine && lane == wg * 8 + i) key_start = start;
        }
        if (start >= 0) {
          const bool next_a = a.key == start, next_b = !one_list && b.key == start;
          if (next_a) a.next(lane);
          if (next_b) b.next(lane);
        }
      }
      push(key_start, kStageTiles | skip_and_mask(any, mask));
    }
  }

  __device__ __forceinline__ static int skip_and_mask(const bool (&any)[2], const bool (&mask)[2]) {
    return (any[0] ? 0 : kStageSkip) | (any[1] ? 0 : kStageSkip << 1) | (mask[0] ? kStageMask : 0) |
           (mask[1] ? kStageMask << 1 : 0);
  }

  /// Single keys of the rows' column lists. Two halves with lists of their own take turns.
  __device__ __forceinline__ void columns(const Item& item) {
    const int32_t* ptr = p.plan.col_ptr + item.index * p.plan.col_ptr_stride;
    int at[2], end[2], shift[2];  // to the place among packed columns
#pragma unroll
    for (int wg = 0; wg < 2; ++wg) {
      const int group = item.rows[wg] / p.plan.col_rows;
      const bool used = item.last[wg] >= item.first[wg];
      at[wg] = used ? ptr[group] : 0, end[wg] = used ? ptr[group + 1] : 0;
      shift[wg] = p.gathers || !used ? 0 : kColumnBox * (group - p.first_group) - ptr[p.first_group];
    }
    const bool shared_list = at[0] == at[1] && end[0] == end[1];
    while (at[0] < end[0] || at[1] < end[1]) {
#pragma unroll
      for (int wg = 0; wg < 2; ++wg) {
        if (at[wg] >= end[wg] || (shared_list && wg == 1)) continue;
        const int count = min(kStageKeys, end[wg] - at[wg]);
        const bool any[2] = {shared_list || wg == 0, shared_list || wg == 1}, mask[2] = {count < kStageKeys, count < kStageKeys};
        push(lane == 0 ? at[wg] + shift[wg] : count, kStageColumns | skip_and_mask(any, mask));
        at[wg] += count;
        if (shared_list) at[1] = at[0];
      }
    }
  }

  /// Means of the blocks that lie wholly before a row and share no key with its tiles.
  __device__ __forceinline__ void pooled(const Item& item) {
    const int32_t* ptr = p.plan.tile_ptr + item.index * p.plan.tile_ptr_stride;
    const int32_t* ids = p.plan.tile_idx + item.index * p.plan.tile_idx_stride;
    int begin[2], end[2], blocks[2];
#pragma unroll
    for (int wg = 0; wg < 2; ++wg) {
      const bool used = item.last[wg] >= item.first[wg];
      begin[wg] = used ? ptr[item.rows[wg]] : 0, end[wg] = used ? ptr[item.rows[wg] + 1] : 0;
      blocks[wg] = used ? int(int64_t(item.rows[wg]) * p.plan.q_tile / p.plan.pooled_block) : 0;
    }
    for (int start = 0; start < max(blocks[0], blocks[1]); start += kStageKeys) {
      bool any[2];
      int mine = 0;
#pragma unroll
      for (int wg = 0; wg < 2; ++wg) {
        unsigned hidden[4] = {0, 0, 0, 0};
        // the list ascends: skip what lies before the stage's first block
        int low = begin[wg], high = end[wg];
        while (low < high) {
          const int middle = (low + high) / 2;
          if (int64_t(ids[middle]) * p.plan.k_tile / p.plan.pooled_block < start)
            low = middle + 1;
          else
            high = middle;
        }
        for (bool more = true; more && low < end[wg]; low += 32) {
          int block = kStageKeys;
          if (low + lane < end[wg]) block = int(int64_t(ids[low + lane]) * p.plan.k_tile / p.plan.pooled_block) - start;
#pragma unroll
          for (int w = 0; w < 4; ++w) hidden[w] |= block >> 5 == w ? 1u << (block & 31) : 0u;
          more = __all_sync(0xffffffffu, block < kStageKeys);
        }
        int count = 0;
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          hidden[w] = __reduce_or_sync(0xffffffffu, hidden[w]);
          const int valid = min(32, max(0, blocks[wg] - start - 32 * w));
          count += valid - __popc(hidden[w] & (valid == 32 ? ~0u : (1u << valid) - 1));
          if (lane == wg * 8 + w) mine = int(hidden[w]);
        }
        any[wg] = count > 0;
        if (lane == wg * 8 + 4) mine = start;
        if (lane == wg * 8 + 5) mine = blocks[wg];
      }
      const bool mask[2] = {true, true};
      if (any[0] || any[1]) push(mine, kStagePooled | skip_and_mask(any, mask));
    }
  }
};

/// The planning warp.
template <int D>
__device__ __forceinline__ void plan_items(const AttendParams& p, SharedLayout<D>& shared) {
  const int lane = threadIdx.x & 31;
  Planner<D> planner{p, shared, lane};
  int item_id = blockIdx.x;
  for (uint32_t n = 0;; ++n) {
    int next = 0;
    if (lane == 0 && item_id < p.work.items) next = atomicAdd(p.next_item, 1) + gridDim.x;
    mbarrier_wait(&shared.item_empty[n % kItemRing], ((n / kItemRing) & 1) ^ 1);
    ItemInfo& info = shared.items[n % kItemRing];
    if (item_id >= p.work.items) {
      if (lane == 0) info.valid = 0;
      __syncwarp();
      planner.push(kNever, kStageEnd);
      planner.finish_item();
      break;
    }
    const Item item = decode_item(p, item_id, info, lane);
    __syncwarp();
    planner.tiles(item, info);
    if (item.kind == 2 && p.has_pooled) planner.pooled(item);
    if (item.kind == 2 && p.has_columns) planner.columns(item);
    planner.finish_item();
    item_id = __shfl_sync(0xffffffffu, next, 0);
  }
}

/// The loading warp.
template <int D>
__device__ __forceinline__ void load_stages(const AttendParams& p, SharedLayout<D>& shared) {
  using Layout = SharedLayout<D>;
  constexpr int kStages = Layout::kStages;
  static_assert(kStageTiles == kMapTile && kStageColumns == kMapColumns && kStagePooled == kMapPooled);
  const int lane = threadIdx.x & 31;
  if (lane == 0) {
    prefetch_tensor_map(&p.q);
    for (int i = 0; i < kMaps; ++i) {
      prefetch_tensor_map(&p.k[i]);
      prefetch_tensor_map(&p.v[i]);
    }
  }
  int kv_head = 0, unit = 0, flags_before = 0;
  int row_before = 0;  // where this lane's box of the stage before begins
  bool value_due = false;
  uint32_t items = 0, k_columns = 0, v_columns = 0;
  // a box outside the tensor loads as zeros: padding costs no memory traffic
  auto load_keys = [&](const CUtensorMap* maps, uint8_t* tile, uint64_t* bar, uint64_t* go, uint32_t& columns, int row,
                       int flags) {
    const int kind = flags & kStageKinds, count = kind == kStageTiles ? kStageKeys >> p.key_box_shift : 1;
    if (kind == kStageColumns && p.gathers) {  // the gathering warps do it, now that the slot is empty
      if (lane == 0) mbarrier_arrive(&go[columns % kStages]);
      ++columns;
      return;
    }
    if (lane == 0) mbarrier_arrive_expect(bar, Layout::kStageBytes);
    if (p.gathers) mbarrier_arrive(bar);  // as many arrivals as a gathered stage has
    __syncwarp();
    if (lane < count) {
#pragma unroll
      for (int half = 0; half < D / 64; ++half)
        tma_load(tile + half * (kStageKeys * 128) + lane * p.key_box * 128, &maps[kind], bar, half * 64, row,
                 kind == kStageColumns ? unit : kv_head);
    }
  };
  // V of a stage is needed one step later than its K
  auto load_due_values = [&](uint32_t s) {
    if (!value_due) return;
    value_due = false;
    const uint32_t at = s % kStages;
    mbarrier_wait(&shared.v_empty[at], ((s / kStages) & 1) ^ 1);
    load_keys(p.v, shared.v + at * Layout::kStageBytes, &shared.v_full[at], shared.v_go, v_columns, row_before, flags_before);
  };
  for (uint32_t stage = 0;; ++stage) {
    const uint32_t ring = stage % kMetaRing, at = stage % kStages;
    mbarrier_wait(&shared.meta_full[ring], (stage / kMetaRing) & 1);
    const StageMeta& meta = shared.meta[ring];
    const int flags = meta.flags;
    if (flags & kStageFirst) {
      const uint32_t n = items++, slot = n % Layout::kQuerySlots;
      mbarrier_wait(&shared.q_empty[slot], ((n / Layout::kQuerySlots) & 1) ^ 1);
      if (flags & kStageEnd) {
        if (lane == 0) mbarrier_arrive(&shared.q_full[slot]);
        break;
      }
      const ItemInfo& info = shared.items[n % kItemRing];
      const int head = lane < 16 ? info.head[lane] : -1, query = lane < 16 ? info.query[lane] : 0;
      kv_head = info.kv_head, unit = info.unit;
      const unsigned loads = __ballot_sync(0xffffffffu, head >= 0);
      if (lane == 0) mbarrier_arrive_expect(&shared.q_full[slot], __popc(loads) * p.row_box * D * 2);
      __syncwarp();
      if (head >= 0) {
        uint8_t* tile = shared.q + slot * Layout::kQueryBytes + (lane >> 3) * (64 * D * 2) + (lane & 7) * p.row_box * 128;
#pragma unroll
        for (int half = 0; half < D / 64; ++half)
          tma_load(tile + half * (64 * 128), &p.q, &shared.q_full[slot], half * 64, query, head);
      }
    }
    const int kind = flags & kStageKinds;
    const int row = kind == kStagePooled    ? meta.at[4]
                    : kind == kStageColumns ? meta.at[0]
                                            : min(meta.at[lane & 7], meta.at[(lane & 7) + 8]);
    mbarrier_wait(&shared.k_empty[at], ((stage / kStages) & 1) ^ 1);
    // every consumer has released the keys of stage - kStages, so it has masked those of the stage before
    if (stage > kStages) mbarrier_arrive(&shared.meta_empty[(stage - kStages - 1) % kMetaRing]);
    load_keys(p.k, shared.k + at * Layout::kStageBytes, &shared.k_full[at], shared.k_go, k_columns, row, flags);
    load_due_values(stage - 1);
    row_before = row, flags_before = flags, value_due = true;
    if (flags & kStageLast) load_due_values(stage);
  }
}

}  // namespace prefill::kernels::cuda
