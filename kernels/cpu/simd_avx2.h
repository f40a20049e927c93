// 8-lane vectors: AVX2, FMA, F16C. Included by files compiled for those (or for AVX-512) only.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace prefill::kernels::cpu {
namespace {

/// dst[j][i] = src[i][j] for an 8 by 8 block.
inline void transpose_8x8(const float* src, int64_t lds, float* dst, int64_t ldd) {
  // Each load takes 4 columns of rows i and i+4, so that only in-lane shuffles are left.
  __m256 r[8], t[8];
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 4; ++i)
      r[half * 4 + i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src + i * lds + half * 4)),
                                             _mm_loadu_ps(src + (i + 4) * lds + half * 4), 1);
  for (int half = 0; half < 2; ++half) {
    __m256* x = r + half * 4;
    t[0] = _mm256_unpacklo_ps(x[0], x[1]);
    t[1] = _mm256_unpackhi_ps(x[0], x[1]);
    t[2] = _mm256_unpacklo_ps(x[2], x[3]);
    t[3] = _mm256_unpackhi_ps(x[2], x[3]);
    _mm256_storeu_ps(dst + (half * 4 + 0) * ldd, _mm256_shuffle_ps(t[0], t[2], 0x44));
    _mm256_storeu_ps(dst + (half * 4 + 1) * ldd, _mm256_shuffle_ps(t[0], t[2], 0xee));
    _mm256_storeu_ps(dst + (half * 4 + 2) * ldd, _mm256_shuffle_ps(t[1], t[3], 0x44));
    _mm256_storeu_ps(dst + (half * 4 + 3) * ldd, _mm256_shuffle_ps(t[1], t[3], 0xee));
  }
}

/// Rounds 8 floats to bf16 (ties to even, NaN stays NaN).
inline __m128i narrow_bf16(__m256 v) {
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc0), nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

struct Avx2 {
  static constexpr const char* name = "avx2";
  static constexpr int width = 8, vectors = 2, rows = 6;
  using V = __m256;

  static V set1(float x) { return _mm256_set1_ps(x); }
  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static V load_bf16(const uint16_t* p) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
  }
  static V load_f16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_bf16(uint16_t* p, V v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_bf16(v)); }
  static void store_f16(uint16_t* p, V v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }
  static bool any_differ(V a, V b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)) != 0; }
  static float sum(V v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static V ldexp_small(V p, V z) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(z), 23)));
  }
  static V keep_not_below(V t, V lo, V x) { return _mm256_and_ps(_mm256_cmp_ps(t, lo, _CMP_NLT_UQ), x); }
  static constexpr int square = 8;
  static void transpose(const float* src, int64_t lds, float* dst, int64_t ldd) {
    transpose_8x8(src, lds, dst, ldd);
  }
};

}  // namespace
}  // namespace prefill::kernels::cpu
