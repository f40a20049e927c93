// Shared memory of the Hopper attention kernel, and what the planner tells loader and consumers about each work
// item and each stage of keys.
#pragma once
#include <cstdint>

#include "kernels/cuda/sm90_primitives.cuh"
#include "kernels/cuda/work_item.cuh"

namespace prefill::kernels::cuda {

constexpr int kStageKeys = 128;        ///< keys of one ring stage
constexpr int kNever = 1 << 30;        ///< position of a key that no query sees
constexpr int kTurnBarrier = 1;        ///< named barriers 1, 2: whose turn on the tensor cores
constexpr int kGroupBarrier = 3;       ///< 3, 4: inside a consumer warpgroup
constexpr int kGatherWarps = 2;
constexpr int kMetaRing = 12;          ///< stages the planner may be ahead by, and what consumers still read
constexpr int kItemRing = 6;

// StageMeta::flags
constexpr int kStageKinds = 3, kStageTiles = 0, kStageColumns = 1, kStagePooled = 2;
constexpr int kStageLast = 4;          ///< last stage of its item
constexpr int kStageFirst = 128;       ///< first stage of its item
constexpr int kStageEnd = 256;         ///< no more work
constexpr int kStageSkip = 8;          ///< << warpgroup: nothing here for it
constexpr int kStageMask = 32;         ///< << warpgroup: some keys are hidden from some of its rows

/// `at` by kind of stage:
///   tiles    [warpgroup][box] position of the box's first key, kNever if it is not for that warpgroup
///   columns  [0] offset into the pattern's col_idx or into the unit's packed columns, [1] number of columns
///   pooled   [8 warpgroup + 0..3] blocks that are hidden, one bit each, [4] first block, [5] end of the visible blocks
struct StageMeta {
  int at[16];
  int flags;
};

template <int D>
struct alignas(1024) SharedLayout {
  static constexpr int kStages = D == 128 ? 2 : 4;
  static constexpr int kQueryBytes = 128 * D * 2, kStageBytes = kStageKeys * D * 2;
  static constexpr int kQuerySlots = 2;
  // [half of D][row][64 elements], 128-byte swizzle; Q slots and the result are [warpgroup][half][64][64]
  uint8_t q[kQuerySlots * kQueryBytes], k[kStages * kStageBytes], v[kStages * kStageBytes], out[kQueryBytes];
  uint64_t q_full[kQuerySlots], q_empty[kQuerySlots], k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
  uint64_t k_go[kStages], v_go[kStages];  // of column stages, in their own count: the slot may be written to
  uint64_t meta_full[kMetaRing], meta_empty[kMetaRing], item_empty[kItemRing];
  StageMeta meta[kMetaRing];
  ItemInfo items[kItemRing];
};

template <int D>
__device__ __forceinline__ void init_barriers(SharedLayout<D>& shared, bool gathers) {
  constexpr int kConsumers = 256;
  const int producers = gathers ? 33 : 1;  // a warp and the one lane that closes the phase, see gather_columns
  for (int i = 0; i < SharedLayout<D>::kQuerySlots; ++i) {
    mbarrier_init(&shared.q_full[i], 1);
    mbarrier_init(&shared.q_empty[i], kConsumers);
  }
  for (int i = 0; i < SharedLayout<D>::kStages; ++i) {
    mbarrier_init(&shared.k_go[i], 1);
    mbarrier_init(&shared.v_go[i], 1);
    mbarrier_init(&shared.k_full[i], producers);
    mbarrier_init(&shared.k_empty[i], kConsumers);
    mbarrier_init(&shared.v_full[i], producers);
    mbarrier_init(&shared.v_empty[i], kConsumers);
  }
  for (int i = 0; i < kMetaRing; ++i) {
    mbarrier_init(&shared.meta_full[i], 32);
    mbarrier_init(&shared.meta_empty[i], 32 * (gathers ? 1 + kGatherWarps : 1));
  }
  for (int i = 0; i < kItemRing; ++i) mbarrier_init(&shared.item_empty[i], 8);  // one per consumer warp
  mbarrier_init_fence();
}

}  // namespace prefill::kernels::cuda
