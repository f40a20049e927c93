// Walks the key boxes of one plan row from the last to the first. All lanes of a warp call together; `box` is the
// same in all of them.
#pragma once
#include <cstdint>

namespace prefill::kernels::cuda {

struct KeyCursor {
  int box = -1;  ///< current box, -1 at the end

  /// Tiles of a CSR row, each `boxes_per_tile` boxes; boxes after `last_box` are left out.
  __device__ __forceinline__ void start_list(const int32_t* ids, int begin, int end, int boxes_per_tile, int last_box,
                                             int lane) {
    ids_ = ids, begin_ = begin, at_ = end, chunk_ = end, per_tile_ = boxes_per_tile, listed_ = true;
    box = 0;
    step(lane);
    while (box > last_box) step(lane);
  }
  /// Boxes [local_begin, end) and [0, sink_end), without repetition.
  __device__ __forceinline__ void start_ranges(int sink_end, int local_begin, int end) {
    listed_ = false, begin_ = local_begin, at_ = sink_end;
    box = end - 1;
  }
  __device__ __forceinline__ void step(int lane) {
    if (!listed_) {
      --box;
      if (box < begin_ && box >= at_) box = at_ - 1;
      return;
    }
    if (box % per_tile_ != 0) {
      --box;
      return;
    }
    if (--at_ < begin_) {
      box = -1;
      return;
    }
    if (at_ < chunk_) {  // fetch the next 32 ids
      chunk_ = max(begin_, at_ - 31);
      cached_ = chunk_ + lane <= at_ ? ids_[chunk_ + lane] : 0;
    }
    box = __shfl_sync(0xffffffffu, cached_, at_ - chunk_) * per_tile_ + per_tile_ - 1;
  }

 private:
  const int32_t* ids_ = nullptr;
  int begin_ = 0, at_ = 0, chunk_ = 0, per_tile_ = 1, cached_ = 0;
  bool listed_ = false;
};

}  // namespace prefill::kernels::cuda
