// Single keys of column lists: one warp copies rows of K, one rows of V, by cp.async into the swizzle that TMA writes
// for tiles, so that the consumers see no difference. (One TMA box per row was tried: the copy engine takes some 60
// cycles for a row of 128 bytes, and the kernel fell to an eighth of its tile speed.)
#pragma once
#include "kernels/cuda/attend_params.h"
#include "kernels/cuda/shared_layout_sm90.cuh"

namespace prefill::kernels::cuda {

/// Copies 128 rows of D elements; index[i] of lane l is the row of the tensor for row 32 i + l.
template <int D, class T>
__device__ __forceinline__ void gather_rows(uint32_t tile, const T* base, int row_stride,
                                            const int (&index)[kStageKeys / 32], int lane) {
  constexpr int kPieces = D / 8, kRowsPerPass = 32 / kPieces;  // pieces of 16 bytes
  const int piece = lane % kPieces, sub = lane / kPieces;
  const uint32_t column = tile + (piece / 8) * (kStageKeys * 128) + sub * 128, at_piece = ((piece & 7) ^ sub) << 4;
  const T* const from = base + piece * 8;
#pragma unroll
  for (int i = 0; i < kStageKeys / 32; ++i)
#pragma unroll
    for (int at = 0; at < 32; at += kRowsPerPass) {
      const int key = __shfl_sync(0xffffffffu, index[i], at + sub);
      copy_async_16(column + (at_piece ^ ((at & 7) << 4)) + (32 * i + at) * 128, from + int64_t(key) * row_stride);
    }
}

/// What a gathering warp knows of a stage: flags, and the columns that its lanes copy.
struct GatherStage {
  int flags = 0, index[kStageKeys / 32] = {};
};

/// One gathering warp: of K (which = 0) or of V (1). It reads what all stages hold and fills those of columns, when the
/// loading warp, which waits for every slot in order, says that the slot is empty. (It cannot ask the slot's own barrier: a
/// parity tells two phases apart and no more, and while stages of tiles pass, which need no gathering, this warp may fall
/// more than that behind.) Columns are read one stage ahead where the planner is far enough.
template <int D, class T>
__device__ __forceinline__ void gather_columns(const AttendParams& p, SharedLayout<D>& shared, int which) {
  using Layout = SharedLayout<D>;
  constexpr int kStages = Layout::kStages;
  const int lane = threadIdx.x & 31;
  uint64_t *const full = which ? shared.v_full : shared.k_full, *const go = which ? shared.v_go : shared.k_go;
  const uint32_t ring_base = smem_address(which ? shared.v : shared.k);
  const int row_stride = int(which ? p.qkv.v_row_stride : p.qkv.k_row_stride);
  const T *base = nullptr, *next_base = nullptr;
  const int32_t* columns = nullptr;
  uint32_t items = 0, gathered = 0;
  auto read = [&](uint32_t stage, GatherStage& s) {
    const uint32_t ring = stage % kMetaRing;
    const StageMeta& meta = shared.meta[ring];
    s.flags = meta.flags;
    const int offset = meta.at[0], last = meta.at[1] - 1;
    if (s.flags & kStageFirst) {
      const ItemInfo& info = shared.items[items++ % kItemRing];
      next_base = which ? static_cast<const T*>(p.qkv.v) + info.kv_head * p.qkv.v_head_stride
                        : static_cast<const T*>(p.qkv.k) + info.kv_head * p.qkv.k_head_stride;
      columns = p.plan.col_idx + info.columns;
    }
    mbarrier_arrive(&shared.meta_empty[ring]);
    if ((s.flags & (kStageKinds | kStageEnd)) != kStageColumns) return;
    // the last stage repeats its last column: consumers mask what follows, and read nothing that the row does not see
#pragma unroll
    for (int i = 0; i < kStageKeys / 32; ++i) s.index[i] = columns[offset + min(32 * i + lane, last)];
  };
  GatherStage next;
  bool known = false;
  for (uint32_t stage = 0;; ++stage) {
    if (!known) {
      mbarrier_wait(&shared.meta_full[stage % kMetaRing], (stage / kMetaRing) & 1);
      read(stage, next);
    }
    const GatherStage s = next;
    base = next_base;
    if (s.flags & kStageEnd) break;
    known = mbarrier_test(&shared.meta_full[(stage + 1) % kMetaRing], ((stage + 1) / kMetaRing) & 1);
    if (known) read(stage + 1, next);
    if ((s.flags & kStageKinds) != kStageColumns) continue;
    const uint32_t at = stage % kStages;
    mbarrier_wait(&go[gathered % kStages], (gathered / kStages) & 1);
    ++gathered;
    gather_rows<D, T>(ring_base + at * Layout::kStageBytes, base, row_stride, s.index, lane);
    // No wait here: the copies arrive by themselves, and the next stage's are issued behind them. The consumers make
    // them visible to the tensor cores.
    copy_async_arrive(&full[at]);
    if (lane == 0) mbarrier_arrive(&full[at]);  // the loading lane's arrival of other stages
  }
}

}  // namespace prefill::kernels::cuda
