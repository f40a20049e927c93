// Row operations over one instruction set I (simd_*.h): conversion, transposition, exp.
#pragma once
#include "kernels/cpu/scalar.h"

namespace prefill::kernels::cpu {
namespace {

/// exp2(t), relative error 2e-7, exactly 0 below -126, NaN in NaN out. t must not exceed 127.
template <class I>
inline typename I::V exp2_of(typename I::V t) {
  // 2^t = 2^n 2^r with n = round(t): adding 1.5*2^23 leaves n in the low mantissa bits. The polynomial is the
  // minimax fit of 2^r on [-1/2, 1/2] with p(0) = 1, relative error 9.2e-8.
  const auto magic = I::set1(12582912.f);
  const auto z = I::add(t, magic);
  const auto r = I::sub(t, I::sub(z, magic));
  auto p = I::set1(0x1.5bba14p-10f);
  p = I::fma(p, r, I::set1(0x1.3cea88p-7f));
  p = I::fma(p, r, I::set1(0x1.c6b752p-5f));
  p = I::fma(p, r, I::set1(0x1.ebf9bcp-3f));
  p = I::fma(p, r, I::set1(0x1.62e42ap-1f));
  p = I::fma(p, r, I::set1(1.f));
  return I::keep_not_below(t, I::set1(-126.f), I::ldexp_small(p, z));
}

inline constexpr float kLog2e = 1.44269504f;

/// n values to float32; n is a multiple of 8 for the vector widths to 8, the rest goes one by one.
template <class I>
inline void widen(Dtype dtype, const void* src, float* dst, int n) {
  int d = 0;
  if (dtype == Dtype::f32) {
    const float* s = static_cast<const float*>(src);
    for (; d + I::width <= n; d += I::width) I::store(dst + d, I::load(s + d));
  } else if (dtype == Dtype::bf16) {
    const uint16_t* s = static_cast<const uint16_t*>(src);
    for (; d + I::width <= n; d += I::width) I::store(dst + d, I::load_bf16(s + d));
  } else {
    const uint16_t* s = static_cast<const uint16_t*>(src);
    for (; d + I::width <= n; d += I::width) I::store(dst + d, I::load_f16(s + d));
  }
  for (; d < n; ++d) dst[d] = load_scalar(dtype, src, d);
}

template <class I>
inline void narrow(Dtype dtype, const float* src, void* dst, int n) {
  int d = 0;
  if (dtype == Dtype::f32) {
    float* o = static_cast<float*>(dst);
    for (; d + I::width <= n; d += I::width) I::store(o + d, I::load(src + d));
  } else if (dtype == Dtype::bf16) {
    uint16_t* o = static_cast<uint16_t*>(dst);
    for (; d + I::width <= n; d += I::width) I::store_bf16(o + d, I::load(src + d));
  } else {
    uint16_t* o = static_cast<uint16_t*>(dst);
    for (; d + I::width <= n; d += I::width) I::store_f16(o + d, I::load(src + d));
  }
  for (; d < n; ++d) store_scalar(dtype, dst, d, src[d]);
}

/// dst[j][i] = src[i][j]; rows and cols are multiples of I::square.
template <class I>
inline void transpose(const float* src, int64_t lds, int rows, int cols, float* dst, int64_t ldd) {
  for (int i = 0; i < rows; i += I::square)
    for (int j = 0; j < cols; j += I::square) I::transpose(src + i * lds + j, lds, dst + j * ldd + i, ldd);
}

template <class I>
inline void fill(float* p, int64_t n, float x) {
  for (int64_t i = 0; i < n; ++i) p[i] = x;
}

}  // namespace
}  // namespace prefill::kernels::cpu
