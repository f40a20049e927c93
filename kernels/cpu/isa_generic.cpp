#include "kernels/cpu/simd_generic.h"
#include "kernels/cpu/tail_simd.h"

namespace prefill::kernels::cpu {
const IsaKernels& generic_kernels() {
  static constexpr IsaKernels table = kernel_table<Generic>();
  return table;
}
}  // namespace prefill::kernels::cpu
