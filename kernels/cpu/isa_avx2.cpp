#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/tail_simd.h"

namespace prefill::kernels::cpu {
const IsaKernels& avx2_kernels() {
  static constexpr IsaKernels table = kernel_table<Avx2>();
  return table;
}
}  // namespace prefill::kernels::cpu
