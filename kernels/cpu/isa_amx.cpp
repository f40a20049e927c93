// GCC 12 warns of its own AVX-512 headers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "kernels/cpu/attend_simd.h"
#include "kernels/cpu/engine_amx.h"

namespace prefill::kernels::cpu {
const IsaKernels& amx_kernels() {
  using E = EngineAmx;
  static constexpr IsaKernels table = {"amx-bf16",     E::L,    E::lane_budget, attend_scratch_bytes<E>,
                                       attend_task<E>, nullptr, nullptr,        nullptr};
  return table;
}
}  // namespace prefill::kernels::cpu
