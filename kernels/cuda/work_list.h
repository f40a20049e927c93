#pragma once
#include "kernels/api.h"
#include "kernels/cuda/attend_params.h"

namespace prefill::kernels::cuda {

/// Fills p.work and the tile geometry from the shapes and routes of a plan (host memory only).
/// pack: let query heads of a key/value head with equal routes share tiles when q_tile < 128.
Result build_work_list(const QkvView& qkv, const PlanView& plan, bool pack, AttendParams& p);

/// Leaves the items of `count` tiles of 128 queries from `first` on.
void keep_tiles(WorkList&, int first, int count);

}  // namespace prefill::kernels::cuda
