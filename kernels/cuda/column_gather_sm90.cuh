// Single keys of column lists: one warp copies rows of K, one rows of V, by cp.async into the swizzle that TMA writes
// for tiles, so that the consumers see no difference. (One TMA box per row was tried: the copy engine takes some 60
// cycles for a row of 128 bytes, and the kernel fell to an eighth of its tile speed.)
#pragma once
#include "kernels/cuda/attend_params.h"
#include "kernels/cuda/shared_layout_sm90.cuh"

namespace prefill::kernels::cuda {

/// Copies 128 rows of D elements; index[i] of lane l is the row of the tensor for row 32 i + l, negative: zeros.
template <int D, class T>
__device__ __forceinline__ void gather_rows(uint32_t tile, const T* base, int64_t row_stride,
                                            const int (&index)[kStageKeys / 32], int lane) {
  constexpr int kPieces = D / 8, kRowsPerPass = 32 / kPieces;  // pieces of 16 bytes
  const int piece = lane % kPieces, sub = lane / kPieces;
  const uint32_t column = tile + (piece / 8) * (kStageKeys * 128);
#pragma unroll
  for (int i = 0; i < kStageKeys / 32; ++i)
#pragma unroll
    for (int at = 0; at < 32; at += kRowsPerPass) {
      const int key = __shfl_sync(0xffffffffu, index[i], at + sub), row = 32 * i + at + sub;
      copy_async_16(column + row * 128 + (((piece & 7) ^ (row & 7)) << 4), base + max(key, 0) * row_stride + piece * 8,
                    key >= 0);
    }
}

/// One gathering warp: of K (which = 0) or of V (1). It follows all stages, since a barrier's parity tells two phases
/// apart and no more, and fills those of columns.
template <int D, class T>
__device__ __forceinline__ void gather_columns(const AttendParams& p, SharedLayout<D>& shared, int which) {
  using Layout = SharedLayout<D>;
  constexpr int kStages = Layout::kStages;
  const int lane = threadIdx.x & 31;
  uint64_t *const full = which ? shared.v_full : shared.k_full, *const empty = which ? shared.v_empty : shared.k_empty;
  const uint32_t ring_base = smem_address(which ? shared.v : shared.k);
  const int64_t row_stride = which ? p.qkv.v_row_stride : p.qkv.k_row_stride;
  const T* base = nullptr;
  const int32_t* columns = nullptr;
  uint32_t items = 0;
  for (uint32_t stage = 0;; ++stage) {
    const uint32_t ring = stage % kMetaRing, at = stage % kStages;
    mbarrier_wait(&shared.meta_full[ring], (stage / kMetaRing) & 1);
    const StageMeta& meta = shared.meta[ring];
    const int flags = meta.flags, offset = meta.at[0], count = meta.at[1];
    if (flags & kStageFirst) {
      const ItemInfo& info = shared.items[items++ % kItemRing];
      base = which ? static_cast<const T*>(p.qkv.v) + info.kv_head * p.qkv.v_head_stride
                   : static_cast<const T*>(p.qkv.k) + info.kv_head * p.qkv.k_head_stride;
      columns = p.plan.col_idx + info.columns;
    }
    mbarrier_arrive(&shared.meta_empty[ring]);
    if (flags & kStageEnd) break;
    const bool mine = (flags & kStageKinds) == kStageColumns;
    int index[kStageKeys / 32];
    if (mine) {
#pragma unroll
      for (int i = 0; i < kStageKeys / 32; ++i) index[i] = 32 * i + lane < count ? columns[offset + 32 * i + lane] : -1;
    }
    mbarrier_wait(&empty[at], ((stage / kStages) & 1) ^ 1);
    if (!mine) continue;
    gather_rows<D, T>(ring_base + at * Layout::kStageBytes, base, row_stride, index, lane);
    copy_async_commit();
    copy_async_wait<0>();
    fence_async_proxy();
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&full[at]);
  }
}

}  // namespace prefill::kernels::cuda
