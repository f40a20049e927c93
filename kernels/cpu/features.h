// Which of the compiled instruction sets this machine has.
#pragma once
#include "kernels/cpu/work.h"

namespace prefill::kernels::cpu {

/// The widest table this machine can run. The environment variable PREFILL_CPU_ISA (generic, avx2, avx512)
/// caps it, so that every path can be tested on one machine.
const IsaKernels& best_kernels();

}  // namespace prefill::kernels::cpu
