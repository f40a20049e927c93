// One work item: 128 rows of queries that belong together, and where their keys are listed.
#pragma once
#include "kernels/cuda/attend_params.h"

namespace prefill::kernels::cuda {

/// What those who compute need to know of an item. Two halves of 64 rows: Hopper's two consumer warpgroups, or two
/// thread blocks of the sm_80 kernel.
struct ItemInfo {
  int valid;                     ///< 0: no more work
  int unit;
  int kv_head;
  int head[16], query[16];       ///< [warpgroup][box of row_box rows]: head (-1: none), first query
  int sink, local, last_start;   ///< window routes; without a window local is seq_len
  int64_t columns;               ///< offset of the pattern's col_idx
};

/// A work item as the planner sees it; the same in all lanes of a warp.
struct Item {
  int unit, kind, index;
  int first[2], last[2];  ///< first and last query of each warpgroup; last < first: it has no rows
  int rows[2];            ///< plan row of each warpgroup
};

/// Decodes work item `n` and publishes what loader and consumers need.
__device__ __forceinline__ Item decode_item(const AttendParams& p, int n, ItemInfo& info, int lane) {
  const WorkList& w = p.work;
  int section = 0;
  while (n >= w.section_item[section + 1]) ++section;
  const int slots = w.section_slot[section + 1] - w.section_slot[section], local = n - w.section_item[section];
  const int tile = w.first_tile + w.tiles - 1 - local / slots;
  const Slot slot = w.slots[w.section_slot[section] + local % slots];
  const Unit& unit = w.units[slot.unit];
  Item item;
  item.unit = slot.unit, item.kind = unit.kind, item.index = unit.index;
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
    info.unit = slot.unit;
    info.kv_head = unit.kv_head;
    info.columns = unit.index * p.plan.col_idx_stride;
    info.sink = 0, info.local = p.seq_len, info.last_start = p.seq_len;
    if (unit.kind == 1) {
      const WindowView& window = p.windows[unit.index];
      info.sink = int(min(window.sink, int64_t(p.seq_len)));
      info.local = int(min(window.local, int64_t(p.seq_len)));
      info.last_start = int(max(int64_t(0), p.seq_len - window.last));
    }
  }
  return item;
}

}  // namespace prefill::kernels::cuda
