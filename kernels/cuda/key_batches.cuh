// The keys of one half item in batches of 64, for the mma.sync kernels: tiles from the last to the first, then pooled
// means, then single columns.
#pragma once
#include "kernels/cuda/key_cursor.cuh"
#include "kernels/cuda/tile_mma.cuh"
#include "kernels/cuda/work_item.cuh"

namespace prefill::kernels::cuda {

constexpr int kHiddenKey = 1 << 30;

struct KeyBatch {
  int row[kMmaKeys];       ///< row of K and V (or of their means); negative: none, loads as zeros
  int position[kMmaKeys];  ///< the key is visible to queries at or after this; kHiddenKey: to none
  int pooled;              ///< rows are of the pooled tensors
  int valid;               ///< 0: there was no further batch
};

/// One warp owns it; all lanes call together.
class KeyBatches {
 public:
  __device__ __forceinline__ KeyBatches(const AttendParams& p, const Item& item, const ItemInfo& info, int half, int lane)
      : p_(p), lane_(lane) {
    const int first = item.first[half], last = item.last[half], row = item.rows[half];
    if (last < first) return;
    shift_ = min(p.key_box_shift, 6);
    if (item.kind == 2) {
      const int32_t* ptr = p.plan.tile_ptr + item.index * p.plan.tile_ptr_stride;
      ids_ = p.plan.tile_idx + item.index * p.plan.tile_idx_stride;
      begin_ = ptr[row], end_ = ptr[row + 1];
      tiles_.start_list(ids_, begin_, end_, p.plan.k_step, p.plan.k_tile, 1 << shift_, last, lane);
      if (p.has_pooled) blocks_ = int(int64_t(row) * p.plan.q_tile / p.plan.pooled_block);
      if (p.has_columns) {
        const int32_t* columns = p.plan.col_ptr + item.index * p.plan.col_ptr_stride + row / p.plan.col_rows;
        column_ = columns[0], column_end_ = columns[1];
        columns_ = p.plan.col_idx + info.columns;
      }
    } else {
      const int end = (last >> shift_) + 1, box = 1 << shift_;
      int sink = 0, local = 0;
      if (item.kind == 1 && last < info.last_start) {
        sink = min(end, (info.sink + box - 1) >> shift_);
        local = max(sink, max(0, first - info.local + 1) >> shift_);
      }
      tiles_.start_ranges(sink, local, end, box);
    }
  }

  __device__ __forceinline__ void next(KeyBatch& batch) {
    bool valid = true, pooled = false;
    if (tiles_.key >= 0) {
      for (int at = 0; at < kMmaKeys; at += 1 << shift_) {
        const int start = tiles_.key < 0 ? kHiddenKey : tiles_.key;
        for (int i = lane_; i < 1 << shift_; i += 32) {
          const bool real = start + i < p_.seq_len;
          batch.row[at + i] = real ? start + i : -1;
          batch.position[at + i] = real ? start + i : kHiddenKey;
        }
        if (tiles_.key >= 0) tiles_.next(lane_);
      }
    } else if (block_ < blocks_) {
      pooled = true;
      const int per = p_.plan.pooled_block / p_.plan.k_tile;
      for (int i = lane_; i < kMmaKeys; i += 32) {
        const int block = block_ + i;
        int low = begin_, high = end_;
        while (low < high) {  // the first listed tile at or after the block's
          const int middle = (low + high) / 2;
          if (ids_[middle] < block * per)
            low = middle + 1;
          else
            high = middle;
        }
        const bool visible = block < blocks_ && !(low < end_ && ids_[low] < (block + 1) * per);
        batch.row[i] = visible ? block : -1;
        batch.position[i] = visible ? -1 : kHiddenKey;
      }
      block_ += kMmaKeys;
    } else if (column_ < column_end_) {
      for (int i = lane_; i < kMmaKeys; i += 32) {
        const bool real = column_ + i < column_end_;
        batch.row[i] = real ? columns_[column_ + i] : -1;
        batch.position[i] = real ? batch.row[i] : kHiddenKey;
      }
      column_ += kMmaKeys;
    } else {
      valid = false;
    }
    if (lane_ == 0) batch.valid = valid, batch.pooled = pooled;
  }

 private:
  const AttendParams& p_;
  const int lane_;
  KeyCursor tiles_;
  const int32_t *ids_ = nullptr, *columns_ = nullptr;
  int shift_ = 6, begin_ = 0, end_ = 0, block_ = 0, blocks_ = 0, column_ = 0, column_end_ = 0;
};

}  // namespace prefill::kernels::cuda
