// GCC 12 warns of its own AVX-512 headers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/tail_simd.h"

namespace prefill::kernels::cpu {
const IsaKernels& avx512_kernels() {
  static constexpr IsaKernels table = kernel_table<Avx512>();
  return table;
}
}  // namespace prefill::kernels::cpu
