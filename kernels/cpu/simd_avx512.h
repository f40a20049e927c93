// 16-lane vectors: AVX-512 F, BW, VL, DQ. Included by files compiled for those only.
#pragma once
#include "kernels/cpu/simd_avx2.h"

namespace prefill::kernels::cpu {
namespace {

struct Avx512 {
  static constexpr const char* name = "avx512";
  static constexpr int width = 16, vectors = 2, rows = 12;
  using V = __m512;

  static V set1(float x) { return _mm512_set1_ps(x); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static V load_bf16(const uint16_t* p) {
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
  }
  static V load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_bf16(uint16_t* p, V v) {
    Avx2::store_bf16(p, _mm512_castps512_ps256(v));
    Avx2::store_bf16(p + 8, _mm512_extractf32x8_ps(v, 1));
  }
  static void store_f16(uint16_t* p, V v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }
  static bool any_differ(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) != 0; }
  static float sum(V v) {
    return Avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
  }
  static V ldexp_small(V p, V z) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(z), 23)));
  }
  static V keep_not_below(V t, V lo, V x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, lo, _CMP_NLT_UQ), x);
  }
  static constexpr int square = 8;
  static void transpose(const float* src, int64_t lds, float* dst, int64_t ldd) {
    transpose_8x8(src, lds, dst, ldd);
  }
};

}  // namespace
}  // namespace prefill::kernels::cpu
