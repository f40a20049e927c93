// Walks the key boxes of one plan row from the last to the first. All lanes of a warp call together; `key` is the
// same in all of them.
#pragma once
#include <cstdint>

namespace prefill::kernels::cuda {

struct KeyCursor {
  int key = -1;  ///< first key of the current box, -1 at the end

  /// Tiles of a CSR row: id t holds the `tile` keys from t * step on, in boxes of `box` keys; boxes that start after
  /// `last_key` are left out.
  __device__ __forceinline__ void start_list(const int32_t* ids, int begin, int end, int step, int tile, int box, int last_key,
                                             int lane) {
    ids_ = ids, begin_ = begin, at_ = end, chunk_ = end, step_ = step, box_ = box, last_box_ = tile - box, listed_ = true;
    key = 0, tile_ = 0;
    next(lane);
    while (key > last_key) next(lane);
  }
  /// Boxes from local_begin to end and from 0 to sink_end (numbers of boxes), without repetition.
  __device__ __forceinline__ void start_ranges(int sink_end, int local_begin, int end, int box) {
    listed_ = false, begin_ = local_begin * box, at_ = sink_end * box, box_ = box;
    key = (end - 1) * box;
  }
  __device__ __forceinline__ void next(int lane) {
    if (!listed_) {
      key -= box_;
      if (key < begin_ && key >= at_) key = at_ - box_;
      if (key < 0) key = -1;
      return;
    }
    if (key > tile_) {
      key -= box_;
      return;
    }
    if (--at_ < begin_) {
      key = -1;
      return;
    }
    if (at_ < chunk_) {  // fetch the next 32 ids
      chunk_ = max(begin_, at_ - 31);
      cached_ = chunk_ + lane <= at_ ? ids_[chunk_ + lane] : 0;
    }
    tile_ = __shfl_sync(0xffffffffu, cached_, at_ - chunk_) * step_;
    key = tile_ + last_box_;
  }

 private:
  const int32_t* ids_ = nullptr;
  int begin_ = 0, at_ = 0, chunk_ = 0, step_ = 1, box_ = 1, last_box_ = 0, cached_ = 0;
  int tile_ = 0;  // first key of the current tile
  bool listed_ = false;
};

}  // namespace prefill::kernels::cuda
