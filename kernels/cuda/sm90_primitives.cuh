// The Hopper instructions the kernels use, one thin wrapper each: mbarrier, bulk tensor copies (TMA), warpgroup
// matrix multiply (WGMMA), register reallocation, named barriers. Semantics: PTX ISA 8.x, sections 9.7.9
// (copies), 9.7.13 (mbarrier), 9.7.15 (wgmma).
#pragma once
#include <cuda.h>

#include "kernels/cuda/primitives.cuh"

namespace prefill::kernels::cuda {

// --- mbarrier ----------------------------------------------------------------------------------------------
__device__ __forceinline__ void mbarrier_init(uint64_t* bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_address(bar)), "r"(arrivals) : "memory");
}
/// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(bar)) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t* bar, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_address(bar)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void mbarrier_wait(uint64_t* bar, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(smem_address(bar)),
      "r"(parity)
      : "memory");
}
/// Whether the phase is over, the same answer for the whole warp.
__device__ __forceinline__ bool mbarrier_test(uint64_t* bar, uint32_t parity) {
  uint32_t done;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
               : "=r"(done)
               : "r"(smem_address(bar)), "r"(parity)
               : "memory");
  return __all_sync(0xffffffffu, done);
}

// --- ordering ----------------------------------------------------------------------------------------------
/// Shared memory written by ordinary stores, read next by the copy engine or the tensor cores.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/// The same where `needed`, without a branch: paths that merge with products in flight would serialise them.
__device__ __forceinline__ void fence_async_proxy_if(bool needed) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p fence.proxy.async.shared::cta;\n}\n" ::"r"(int(needed)) : "memory");
}
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
template <int kRegisters>
__device__ __forceinline__ void set_registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void set_registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// --- bulk tensor copies -------------------------------------------------------------------------------------
__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/// Box at (x, y, z) of a 3-d tensor to shared memory; completes on `bar`. What lies outside is zero.
__device__ __forceinline__ void tma_load(void* dst, const CUtensorMap* map, uint64_t* bar, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
          smem_address(dst)),
      "l"(map), "r"(smem_address(bar)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
/// Shared memory to a box of a 3-d tensor. What lies outside is not written.
__device__ __forceinline__ void tma_store(const CUtensorMap* map, const void* src, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
               "r"(smem_address(src)), "r"(x), "r"(y), "r"(z)
               : "memory");
}
__device__ __forceinline__ void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Until the sources of all committed stores may be overwritten.
__device__ __forceinline__ void tma_store_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

// --- WGMMA --------------------------------------------------------------------------------------------------
/// Shared memory operand in the 128-byte swizzle that TMA writes. `leading` and `stride` in bytes: for an
/// operand whose contiguous dimension is the reduced one, stride = distance of groups of 8 rows and leading is
/// not used; for the transposed form leading = distance of 64-element columns, stride = of groups of 8 rows.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>((address & 0x3FFFF) >> 4) | static_cast<uint64_t>((leading & 0x3FFFF) >> 4) << 16 |
         static_cast<uint64_t>((stride & 0x3FFFF) >> 4) << 32 | 1ull << 62;
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving reads and writes of accumulators over the asynchronous instructions.
template <int kCount>
__device__ __forceinline__ void pin(float (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(r[i])::"memory");
}

/// What follows starts after `x`, a number that is never negative, is known. The assembler would otherwise hoist a wait
/// for asynchronous products over the independent arithmetic that is meant to run beside them.
__device__ __forceinline__ void hold_until(float x) {
  asm volatile("{\n.reg .pred never;\nsetp.lt.f32 never, %0, 0f00000000;\n@never nanosleep.u32 0;\n}\n" ::"f"(x) : "memory");
}

// Operand lists of 32 and 64 accumulator registers.
#define PREFILL_ACC8(d, i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define PREFILL_ACC32(d) PREFILL_ACC8(d, 0), PREFILL_ACC8(d, 8), PREFILL_ACC8(d, 16), PREFILL_ACC8(d, 24)
#define PREFILL_ACC64(d) \
  PREFILL_ACC32(d), PREFILL_ACC8(d, 32), PREFILL_ACC8(d, 40), PREFILL_ACC8(d, 48), PREFILL_ACC8(d, 56)
#define PREFILL_LIST32                                                                                          \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31}"
#define PREFILL_LIST64                                                                                          \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "  \
  "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"

/// s[64 x 128] (+)= A[64 x 16] B[128 x 16]^T, both in shared memory, the reduced dimension contiguous.
template <class T>
__device__ __forceinline__ void wgmma_ss_n128(float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {
#define PREFILL_SS(type)                                                                                          \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                                       \
               "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " PREFILL_LIST64                    \
               ", %64, %65, p, 1, 1, 0, 0;\n}\n"                                                                  \
               : PREFILL_ACC64(d)                                                                                 \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))
  if constexpr (sizeof(T) == 2 && std::is_same_v<T, __half>)
    PREFILL_SS("f16");
  else
    PREFILL_SS("bf16");
#undef PREFILL_SS
}

/// d[64 x N] += A[64 x 16] B[16 x N]; A in registers, B in shared memory with N contiguous. N = 2 * registers.
template <class T>
__device__ __forceinline__ void wgmma_rs(float (&d)[64], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t b) {
#define PREFILL_RS(type)                                                                                       \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " PREFILL_LIST64                 \
               ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"                                                    \
               : PREFILL_ACC64(d)                                                                              \
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b))
  if constexpr (std::is_same_v<T, __half>)
    PREFILL_RS("f16");
  else
    PREFILL_RS("bf16");
#undef PREFILL_RS
}
template <class T>
__device__ __forceinline__ void wgmma_rs(float (&d)[32], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t b) {
#define PREFILL_RS(type)                                                                                       \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " PREFILL_LIST32                  \
               ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"                                                    \
               : PREFILL_ACC32(d)                                                                              \
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b))
  if constexpr (std::is_same_v<T, __half>)
    PREFILL_RS("f16");
  else
    PREFILL_RS("bf16");
#undef PREFILL_RS
}

// --- stmatrix ------------------------------------------------------------------------------------------------
__device__ __forceinline__ void store_matrix_x4(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r0), "r"(r1),
               "r"(r2), "r"(r3)
               : "memory");
}

}  // namespace prefill::kernels::cuda
