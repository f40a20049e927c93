// Which of the compiled instruction sets this machine has. The environment variable PREFILL_CPU_ISA (generic,
// avx2, avx512, amx) caps the choice, so that every path below the machine's best can be tested and compared.
#pragma once
#include "kernels/cpu/work.h"

namespace prefill::kernels::cpu {

/// For attention on this dtype: AMX for bf16 where there is AMX, else vectors.
const IsaKernels& attend_kernels(Dtype);
/// Float32 vectors, any dtype: estimators.
const IsaKernels& vector_kernels();

}  // namespace prefill::kernels::cpu
