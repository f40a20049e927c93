// GCC 12 warns of its own AVX-512 headers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "kernels/cpu/attend_simd.h"
#include "kernels/cpu/engine_amx.h"

namespace prefill::kernels::cpu {
namespace {

void pack(const Problem& p, int64_t kv_head, int64_t block, void* scratch) {
  Carve c(scratch);
  EngineAmx(c, p).pack_block(kv_head, block);
}

}  // namespace

const IsaKernels& amx_kernels() {
  using E = EngineAmx;
  static constexpr IsaKernels table = {.name = "amx-bf16",
                                       .lanes = E::L,
                                       .lane_budget = E::lane_budget,
                                       .scratch_bytes = attend_scratch_bytes<E>,
                                       .attend = attend_task<E>,
                                       .packed_bytes = E::packed_bytes,
                                       .pack = pack,
                                       .tail_scratch_bytes = nullptr,  // estimators take the AVX-512 table
                                       .tail = nullptr,
                                       .pool = nullptr};
  return table;
}
}  // namespace prefill::kernels::cpu
