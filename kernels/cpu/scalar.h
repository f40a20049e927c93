// Scalar number conversions and small helpers. Everything here is `static`: files of this folder are compiled
// for different instruction sets, and an inline function with external linkage could be merged by the linker
// into the copy that the oldest machine can not run. For the same reason no STL template appears in headers
// that those files include.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernels/api.h"

namespace prefill::kernels::cpu {

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static inline uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
static inline float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

static inline float from_bf16(uint16_t h) { return float_of(uint32_t(h) << 16); }

/// Round to nearest, ties to even; NaN stays NaN.
static inline uint16_t to_bf16(float x) {
  const uint32_t u = bits_of(x);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return uint16_t(x != x ? 0x7fc0u : rounded);
}

static inline float from_f16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa << 13));
  if (exponent) return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float subnormal = float(mantissa) * 0x1p-24f;  // exact
  return sign ? -subnormal : subnormal;
}

/// Round to nearest, ties to even.
static inline uint16_t to_f16(float x) {
  const uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {                                  // below 2^-14: let the FPU round
    const float shifted = float_of(magnitude) + 0.5f;             // ulp of [0.5, 1) is 2^-24
    return uint16_t(sign | (bits_of(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

static inline int64_t element_size(Dtype d) { return d == Dtype::f32 ? 4 : 2; }

static inline float load_scalar(Dtype d, const void* p, int64_t i) {
  if (d == Dtype::f32) return static_cast<const float*>(p)[i];
  const uint16_t h = static_cast<const uint16_t*>(p)[i];
  return d == Dtype::bf16 ? from_bf16(h) : from_f16(h);
}
static inline void store_scalar(Dtype d, void* p, int64_t i, float x) {
  if (d == Dtype::f32)
    static_cast<float*>(p)[i] = x;
  else
    static_cast<uint16_t*>(p)[i] = d == Dtype::bf16 ? to_bf16(x) : to_f16(x);
}
static inline const void* at_element(Dtype d, const void* p, int64_t i) {
  return static_cast<const char*>(p) + i * element_size(d);
}
static inline void* at_element(Dtype d, void* p, int64_t i) { return static_cast<char*>(p) + i * element_size(d); }

}  // namespace prefill::kernels::cpu
