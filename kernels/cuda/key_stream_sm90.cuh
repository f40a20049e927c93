// The producing side of the Hopper attention kernel, two warps. The planner draws work items, walks their key lists
// and writes what every stage holds, several stages ahead, so that the latency of the index reads stays hidden; the
// loader turns that into bulk copies.
#pragma once
#include "kernels/cuda/attend_params.h"
#include "kernels/cuda/key_cursor.cuh"
#include "kernels/cuda/shared_layout_sm90.cuh"

namespace prefill::kernels::cuda {

/// A work item as the producer sees it; the same in all lanes.
struct Item {
  int unit, kind;
  int first[2], last[2];  ///< first and last query of each warpgroup; last < first: it has no rows
  int rows[2];            ///< plan row of each warpgroup
};

/// Decodes work item `n` and publishes what loader and consumers need.
__device__ __forceinline__ Item decode_item(const AttendParams& p, int n, ItemInfo& info, int lane) {
  const WorkList& w = p.work;
  int section = 0;
  while (n >= w.section_item[section + 1]) ++section;
  const int slots = w.section_slot[section + 1] - w.section_slot[section], local = n - w.section_item[section];
  const int tile = w.tiles - 1 - local / slots;
  const Slot slot = w.slots[w.section_slot[section] + local % slots];
  const Unit& unit = w.units[slot.unit];
  Item item;
  item.unit = slot.unit, item.kind = unit.kind;
  const int rows = 128 / unit.pack;  // queries per head
  const int base = tile * 128 + slot.part * rows;
  if (lane < 16) {
    int my_head = -1, my_query = 0;
    int row = (lane >> 3) * 64 + (lane & 7) * p.row_box;  // in the packed tile
    if ((lane & 7) * p.row_box < 64) {
      int which = row / rows;
      if (which < unit.count) my_head = unit.heads[which];
      my_query = base + row % rows;
      if (my_query >= p.seq_len) my_head = -1;
    }
    info.head[lane] = my_head;
    info.query[lane] = my_query;
  }
#pragma unroll
  for (int wg = 0; wg < 2; ++wg) {
    item.first[wg] = base + (unit.pack == 1 ? 64 * wg : 0);
    bool used = (64 * wg) / rows < unit.count && item.first[wg] < p.seq_len;
    item.last[wg] = used ? min(p.seq_len, item.first[wg] + min(rows, 64)) - 1 : item.first[wg] - 1;
    item.rows[wg] = item.first[wg] / p.plan.q_tile;
  }
  if (lane == 0) {
    info.valid = 1;
    info.kv_head = unit.kv_head;
    if (unit.kind == 1) {
      const WindowView& window = p.windows[unit.index];
      info.sink = int(min(window.sink, int64_t(p.seq_len)));
      info.local = int(min(window.local, int64_t(p.seq_len)));
      info.last_start = int(max(int64_t(0), p.seq_len - window.last));
    }
  }
  return item;
}

template <int D>
struct Planner {
  using Layout = SharedLayout<D>;
  const AttendParams& p;
  Layout& shared;
  const int lane;
  uint32_t stage = 0;
  int extra = 0;  // flags of the next stage

  /// Lane i < 16 brings key_start[i].
  __device__ __forceinline__ void push(int key_start, int flags) {
    const uint32_t at = stage % kMetaRing;
    mbarrier_wait(&shared.meta_empty[at], ((stage / kMetaRing) & 1) ^ 1);
    StageMeta& meta = shared.meta[at];
    if (lane < 16) meta.key_start[lane] = key_start;
    if (lane == 0) meta.flags = flags | extra;
    extra = 0;
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&shared.meta_full[at]);
    ++stage;
  }

  /// All key tiles of an item.
  __device__ __forceinline__ void tiles(const Item& item, const ItemInfo& info) {
    const Unit& unit = p.work.units[item.unit];
    const bool one_list = item.kind != 2 || item.rows[0] == item.rows[1] || item.last[1] < item.first[1];
    const int last_query = max(item.last[0], item.last[1]);
    KeyCursor a, b;
    if (item.kind == 2) {
      const int32_t* ptr = p.plan.tile_ptr + unit.index * p.plan.tile_ptr_stride;
      const int32_t* ids = p.plan.tile_idx + unit.index * p.plan.tile_idx_stride;
      const int row = item.rows[0];
      a.start_list(ids, ptr[row], ptr[row + 1], p.boxes_per_tile, (one_list ? last_query : item.last[0]) >> p.key_box_shift,
                   lane);
      if (!one_list)
        b.start_list(ids, ptr[row + 1], ptr[row + 2], p.boxes_per_tile, item.last[1] >> p.key_box_shift, lane);
    } else {
      const int end = (last_query >> p.key_box_shift) + 1;
      int sink_end = 0, local_begin = 0;
      if (item.kind == 1 && last_query < info.last_start) {
        sink_end = min(end, (info.sink + p.key_box - 1) >> p.key_box_shift);
        local_begin = max(sink_end, max(0, item.first[0] - info.local + 1) >> p.key_box_shift);
      }
      a.start_ranges(sink_end, local_begin, end);
    }
    const int mode = item.kind == 1 ? kStageWindow : kStageCausal;
    const int boxes = kStageKeys >> p.key_box_shift;
    do {
      int key_start = kNever;
      bool any[2] = {false, false}, mask[2] = {false, false};
      for (int i = 0; i < boxes; ++i) {
        const int box = one_list ? a.box : max(a.box, b.box);
        const int start = box * p.key_box;
#pragma unroll
        for (int wg = 0; wg < 2; ++wg) {
          bool mine = box >= 0 && item.last[wg] >= item.first[wg] && start <= item.last[wg] &&
                      (one_list || (wg == 0 ? a.box : b.box) == box);
          bool whole = start + p.key_box - 1 <= item.first[wg];
          if (mode == kStageWindow)
            whole = whole && (start + p.key_box <= info.sink || item.last[wg] - start < info.local ||
                              item.first[wg] >= info.last_start);
          any[wg] = any[wg] || mine;
          mask[wg] = mask[wg] || !mine || !whole;
          if (mine && lane == wg * 8 + i) key_start = start;
        }
        if (box >= 0) {
          const bool step_a = a.box == box, step_b = !one_list && b.box == box;
          if (step_a) a.step(lane);
          if (step_b) b.step(lane);
        }
      }
      const bool last = a.box < 0 && (one_list || b.box < 0);
      int flags = mode | (last ? kStageLast : 0);
#pragma unroll
      for (int wg = 0; wg < 2; ++wg) flags |= (any[wg] ? 0 : kStageSkip << wg) | (mask[wg] ? kStageMask << wg : 0);
      push(key_start, flags);
    } while (a.box >= 0 || (!one_list && b.box >= 0));
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
    planner.extra = kStageFirst;
    if (item_id >= p.work.items) {
      if (lane == 0) info.valid = 0;
      planner.push(kNever, kStageEnd);
      break;
    }
    const Item item = decode_item(p, item_id, info, lane);
    __syncwarp();
    planner.tiles(item, info);
    item_id = __shfl_sync(0xffffffffu, next, 0);
  }
}

/// The loading warp.
template <int D>
__device__ __forceinline__ void load_stages(const AttendParams& p, SharedLayout<D>& shared) {
  using Layout = SharedLayout<D>;
  constexpr int kStages = Layout::kStages;
  const int lane = threadIdx.x & 31;
  if (lane == 0) {
    prefetch_tensor_map(&p.q);
    prefetch_tensor_map(&p.k);
    prefetch_tensor_map(&p.v);
  }
  int kv_head = 0, value_row = 0;
  bool value_due = false;
  uint32_t items = 0;
  // a box outside the tensor loads as zeros: padding costs no memory traffic
  auto load_boxes = [&](const CUtensorMap* map, uint8_t* tile, uint64_t* bar, int row) {
    if (lane == 0) mbarrier_arrive_expect(bar, Layout::kStageBytes);
    __syncwarp();
    if (lane < kStageKeys >> p.key_box_shift) {
#pragma unroll
      for (int half = 0; half < D / 64; ++half)
        tma_load(tile + half * (kStageKeys * 128) + lane * p.key_box * 128, map, bar, half * 64, row, kv_head);
    }
  };
  // V of a stage is needed one step later than its K
  auto load_due_values = [&](uint32_t s) {
    if (!value_due) return;
    value_due = false;
    const uint32_t at = s % kStages;
    mbarrier_wait(&shared.v_empty[at], ((s / kStages) & 1) ^ 1);
    load_boxes(&p.v, shared.v + at * Layout::kStageBytes, &shared.v_full[at], value_row);
  };
  for (uint32_t stage = 0;; ++stage) {
    const uint32_t ring = stage % kMetaRing, at = stage % kStages;
    mbarrier_wait(&shared.meta_full[ring], (stage / kMetaRing) & 1);
    const StageMeta& meta = shared.meta[ring];
    const int flags = meta.flags;
    const int row = lane < 8 ? min(meta.key_start[lane], meta.key_start[lane + 8]) : 0;
    if (flags & kStageFirst) {
      const uint32_t n = items++, slot = n % Layout::kQuerySlots;
      mbarrier_wait(&shared.q_empty[slot], ((n / Layout::kQuerySlots) & 1) ^ 1);
      if (flags & kStageEnd) {
        if (lane == 0) mbarrier_arrive(&shared.q_full[slot]);
        break;
      }
      const ItemInfo& info = shared.items[n % kItemRing];
      const int head = lane < 16 ? info.head[lane] : -1, query = lane < 16 ? info.query[lane] : 0;
      kv_head = info.kv_head;
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
    mbarrier_wait(&shared.k_empty[at], ((stage / kStages) & 1) ^ 1);
    // every consumer has released the keys of stage - kStages, so it has masked those of the stage before
    if (lane == 0 && stage > kStages) mbarrier_arrive(&shared.meta_empty[(stage - kStages - 1) % kMetaRing]);
    load_boxes(&p.k, shared.k + at * Layout::kStageBytes, &shared.k_full[at], row);
    load_due_values(stage - 1);
    value_row = row, value_due = true;
    if (flags & kStageLast) load_due_values(stage);
  }
}

}  // namespace prefill::kernels::cuda
