// What one launch of an attention kernel reads: tensors, the plan, and the order of the work. Built on the host
// by work_list.cpp, passed by value as a __grid_constant__ parameter.
#pragma once
#include <cuda.h>

#include <cstdint>

#include "kernels/api.h"

namespace prefill::kernels::cuda {

constexpr int kMaxPack = 8;       ///< query heads that may share one tile of 128 rows
constexpr int kMaxUnits = 128;    ///< groups of packed heads
constexpr int kMaxSlots = 1024;   ///< (unit, part of 128 queries)
constexpr int kMaxSections = 64;  ///< groups of key/value heads that stay in L2 together
constexpr int kMaxWindows = 64;
constexpr int kMapTile = 0, kMapColumns = 1, kMapPooled = 2, kMaps = 3;  ///< as kStageTiles ... are numbered
constexpr int kColumnBox = 128;   ///< packed columns that a stage reads, and room between two lists

/// Query heads of one key/value head that read the same keys.
struct Unit {
  int16_t heads[kMaxPack];
  int16_t kv_head;
  uint8_t count;  ///< heads in use
  uint8_t pack;   ///< 128 rows are `pack` heads times 128/pack queries
  uint8_t kind;   ///< RouteView::kind
  int32_t index;  ///< RouteView::index
};
struct Slot {
  uint8_t unit, part;
};

/// Work item -> (section, 128 queries, slot). Late queries first, since their rows are the longest.
struct WorkList {
  int items, sections;
  int first_tile, tiles;  ///< of 128 queries each
  int section_item[kMaxSections + 1], section_slot[kMaxSections + 1];
  Slot slots[kMaxSlots];
  Unit units[kMaxUnits];
};

struct AttendParams {
  CUtensorMap q, out;              ///< [heads, rows, D]; boxes of row_box x 64 elements
  CUtensorMap k[kMaps], v[kMaps];  ///< boxes of key_box x 64 and, for pooled keys and packed columns, 128 x 64
  WorkList work;
  int* next_item;                  ///< device counter, zero at launch
  int seq_len, head_dim;
  int row_box, row_box_shift;      ///< queries per Q box: min(64, q_tile)
  int key_box, key_box_shift;      ///< keys per K/V box: 16, 32, 64 or 128
  float scale, scale_log2;
  QkvView qkv;
  PlanView plan;
  OutView result;
  WindowView windows[kMaxWindows];
  bool has_columns, has_pooled, write_out;
  /// Hopper: columns are gathered one by one; else (copy_columns.cu) each unit's lists of this launch's groups of rows lie
  /// side by side, first_group's first, kColumnBox rows apart.
  bool gathers;
  int first_group;
  int pooled_blocks;
  float pooled_bias;               ///< ln(block) / scale: added to raw scores
};

}  // namespace prefill::kernels::cuda
