#include "kernels/cpu/features.h"

#include <cstdlib>
#include <string_view>
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace prefill::kernels::cpu {
namespace {

enum Level { generic, avx2, avx512, amx };

#if defined(__x86_64__)
/// CPUID leaf 7 says what the chip has; Linux grants the tile registers to processes that ask.
bool amx_granted() {
#if defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d & (1u << 22)) || !(d & (1u << 24))) return false;  // AMX-BF16, AMX-TILE
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

Level machine_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return generic;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return avx2;
  return amx_granted() ? amx : avx512;
#else
  return generic;
#endif
}

Level level() {
  static const Level chosen = [] {
    const Level has = machine_level();
    const char* cap = std::getenv("PREFILL_CPU_ISA");
    const std::string_view name = cap ? cap : "amx";
    const Level most = name == "generic" ? generic : name == "avx2" ? avx2 : name == "avx512" ? avx512 : amx;
    return has < most ? has : most;
  }();
  return chosen;
}

}  // namespace

const IsaKernels& vector_kernels() {
#if defined(__x86_64__)
  if (level() >= avx512) return avx512_kernels();
  if (level() == avx2) return avx2_kernels();
#endif
  return generic_kernels();
}

const IsaKernels& attend_kernels(Dtype dtype) {
#if defined(__x86_64__)
  if (level() == amx && dtype == Dtype::bf16) return amx_kernels();
#else
  (void)dtype;
#endif
  return vector_kernels();
}

}  // namespace prefill::kernels::cpu
