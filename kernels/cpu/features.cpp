#include "kernels/cpu/features.h"

#include <cstdlib>
#include <string_view>

namespace prefill::kernels::cpu {
namespace {

int machine_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return 1;
  return 2;
#else
  return 0;
#endif
}

int wanted_level() {
  const char* cap = std::getenv("PREFILL_CPU_ISA");
  const std::string_view name = cap ? cap : "";
  return name == "generic" ? 0 : name == "avx2" ? 1 : 2;
}

}  // namespace

const IsaKernels& best_kernels() {
#if defined(__x86_64__)
  static const int level = machine_level() < wanted_level() ? machine_level() : wanted_level();
  if (level == 2) return avx512_kernels();
  if (level == 1) return avx2_kernels();
#endif
  return generic_kernels();
}

}  // namespace prefill::kernels::cpu
