// 4-lane vectors by GCC's vector extension: SSE2 on old x86, NEON on Arm, plain code elsewhere.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernels/cpu/scalar.h"

namespace prefill::kernels::cpu {
namespace {

struct Generic {
  static constexpr const char* name = "generic";
  static constexpr int width = 4, vectors = 2, rows = 6;
  typedef float V __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));  // wraps round: the lanes that are masked out afterwards

  static V set1(float x) { return V{x, x, x, x}; }
  static V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
  static V load_bf16(const uint16_t* p) { return V{from_bf16(p[0]), from_bf16(p[1]), from_bf16(p[2]), from_bf16(p[3])}; }
  static V load_f16(const uint16_t* p) { return V{from_f16(p[0]), from_f16(p[1]), from_f16(p[2]), from_f16(p[3])}; }
  static void store_bf16(uint16_t* p, V v) {
    for (int i = 0; i < 4; ++i) p[i] = to_bf16(v[i]);
  }
  static void store_f16(uint16_t* p, V v) {
    for (int i = 0; i < 4; ++i) p[i] = to_f16(v[i]);
  }
  static V add(V a, V b) { return a + b; }
  static V sub(V a, V b) { return a - b; }
  static V mul(V a, V b) { return a * b; }
  static V fma(V a, V b, V c) { return a * b + c; }
  /// b where either is NaN.
  static V max(V a, V b) { return a > b ? a : b; }
  static bool any_differ(V a, V b) {
    const I d = a != b;
    return d[0] || d[1] || d[2] || d[3];
  }
  static float sum(V v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static V ldexp_small(V p, V z) { return V(U(p) + (U(z) << 23)); }
  /// x where t is not below lo (NaN included), else 0.
  static V keep_not_below(V t, V lo, V x) { return V(I(x) & ~I(t < lo)); }
  static constexpr int square = 4;
  static void transpose(const float* src, int64_t lds, float* dst, int64_t ldd) {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) dst[j * ldd + i] = src[i * lds + j];
  }
};

}  // namespace
}  // namespace prefill::kernels::cpu
