// Estimators over one instruction set: attention of the last queries to all keys, with its column and distance
// sums (MInference's and FlexPrefill's vertical and slash scores), and block means.
#pragma once
#include <math.h>

#include "kernels/cpu/attend_simd.h"
#include "kernels/cpu/engine_f32.h"

namespace prefill::kernels::cpu {
namespace {

inline constexpr int kTailChunk = 64;

template <class I>
struct TailScratch {
  float *qt, *s, *k, *rows, *map;
  int64_t bytes;
  TailScratch(void* base, const QkvView& a, int64_t tail, bool keep_probs) {
    constexpr int L = lanes<I>;
    Carve c(base);
    const int64_t n = round_up(tail, L);
    qt = c.floats(n * a.head_dim);
    s = c.floats(kTailChunk * L);
    k = c.floats(kTailChunk * a.head_dim);
    rows = c.floats(L * a.head_dim);
    map = keep_probs ? nullptr : c.floats(tail * a.seq_len);
    bytes = c.used();
  }
};

/// Scores of the tail, row-major map[tail][seq_len], from transposed panels.
template <class I>
void tail_scores(const QkvView& a, int head, int64_t tail, const TailScratch<I>& w, float* map) {
  constexpr int L = lanes<I>, W = I::width, NV = I::vectors;
  const int dim = a.head_dim, kv = head / (a.q_heads / a.kv_heads);
  const int64_t n = a.seq_len, first = n - tail;
  for (int64_t x = 0; x < tail; x += L) {
    for (int64_t i = 0; i < L; ++i) {
      float* row = w.rows + i * dim;
      if (x + i >= tail) {
        fill<I>(row, dim, 0.f);
        continue;
      }
      widen<I>(a.dtype, at_element(a.dtype, a.q, head * a.q_head_stride + (first + x + i) * a.q_row_stride), row, dim);
      for (int d = 0; d < dim; ++d) row[d] *= a.scale;
    }
    transpose<I>(w.rows, dim, L, dim, w.qt + x * dim, L);
  }
  for (int64_t j0 = 0; j0 < n; j0 += kTailChunk) {
    const int keys = int(least(kTailChunk, n - j0)), padded = int(round_up(keys, 8));
    for (int j = 0; j < keys; ++j)
      widen<I>(a.dtype, at_element(a.dtype, a.k, kv * a.k_head_stride + (j0 + j) * a.k_row_stride), w.k + j * dim, dim);
    for (int j = keys; j < padded; ++j) fill<I>(w.k + j * dim, dim, 0.f);
    for (int64_t x = 0; x < tail; x += L) {
      typename I::V top[NV];
      for (int v = 0; v < NV; ++v) top[v] = I::set1(-INFINITY);
      score_panel<I>(w.k, dim, padded, w.qt + x * dim, dim, 0.f, w.s, top);
      const int rows = int(least(L, tail - x));
      if (rows == L && keys == padded) {
        transpose<I>(w.s, L, keys, L, map + x * n + j0, n);
      } else {
        for (int i = 0; i < rows; ++i)
          for (int j = 0; j < keys; ++j) map[(x + i) * n + j0 + j] = w.s[j * L + i];
      }
    }
  }
  (void)W;
}

/// Causal softmax of one row of `visible` scores; the rest of the row becomes 0.
template <class I>
void softmax_row(float* row, int64_t visible, int64_t n) {
  constexpr int W = I::width;
  float peak = row[0];
  int64_t j = 0;
  if (visible >= W) {
    typename I::V m = I::load(row);
    for (j = W; j + W <= visible; j += W) m = I::max(m, I::load(row + j));
    float lane[W];
    I::store(lane, m);
    for (int i = 0; i < W; ++i) peak = peak > lane[i] ? peak : lane[i];
  }
  for (; j < visible; ++j) peak = peak > row[j] ? peak : row[j];
  const auto log2e = I::set1(kLog2e), shift = I::set1(-peak * kLog2e);
  auto total = I::set1(0.f);
  for (j = 0; j + W <= visible; j += W) {
    const auto e = exp2_of<I>(I::fma(I::load(row + j), log2e, shift));
    I::store(row + j, e);
    total = I::add(total, e);
  }
  float sum = I::sum(total);
  for (; j < visible; ++j) sum += row[j] = expf(row[j] - peak);
  const float inverse = 1.f / sum;
  for (j = 0; j < visible; ++j) row[j] *= inverse;
  for (; j < n; ++j) row[j] = 0.f;
}

template <class I>
size_t tail_scratch_bytes(const QkvView& a, int64_t tail, bool keep_probs) {
  return size_t(TailScratch<I>(nullptr, a, tail, keep_probs).bytes);
}

template <class I>
void tail_head(const QkvView& a, int head, int64_t tail, float* probs, float* vertical, float* slash,
               void* scratch) {
  const TailScratch<I> w(scratch, a, tail, probs != nullptr);
  const int64_t n = a.seq_len;
  float* map = probs ? probs : w.map;
  tail_scores<I>(a, head, tail, w, map);
  if (vertical) fill<I>(vertical, n, 0.f);
  if (slash) fill<I>(slash, n, 0.f);
  for (int64_t t = 0; t < tail; ++t) {
    float* row = map + t * n;
    const int64_t visible = n - tail + t + 1;
    softmax_row<I>(row, visible, n);
    if (vertical)
      for (int64_t j = 0; j < visible; ++j) vertical[j] += row[j];
    // Distances fall as keys rise: gathered in reverse (slash[n-1-d]), turned round at the end.
    if (slash) {
      float* reversed = slash + (n - visible);
      for (int64_t j = 0; j < visible; ++j) reversed[j] += row[j];
    }
  }
  if (!slash) return;
  for (int64_t i = 0, j = n - 1; i < j; ++i, --j) {
    const float x = slash[i];
    slash[i] = slash[j];
    slash[j] = x;
  }
}

template <class I>
void pool_rows(const void* x, Dtype dtype, int64_t row_stride, int64_t r0, int64_t r1, int dim, float* out) {
  constexpr int W = I::width;
  const float inverse = 1.f / float(r1 - r0);
  int d = 0;
  for (; d + W <= dim; d += W) {
    auto sum = I::set1(0.f);
    for (int64_t r = r0; r < r1; ++r) {
      const void* p = at_element(dtype, x, r * row_stride + d);
      sum = I::add(sum, dtype == Dtype::f32    ? I::load(static_cast<const float*>(p))
                        : dtype == Dtype::bf16 ? I::load_bf16(static_cast<const uint16_t*>(p))
                                               : I::load_f16(static_cast<const uint16_t*>(p)));
    }
    I::store(out + d, I::mul(sum, I::set1(inverse)));
  }
  for (; d < dim; ++d) {
    float sum = 0;
    for (int64_t r = r0; r < r1; ++r) sum += load_scalar(dtype, x, r * row_stride + d);
    out[d] = sum * inverse;
  }
}

template <class I>
constexpr IsaKernels kernel_table() {
  using E = EngineF32<I>;
  return {.name = I::name,
          .lanes = E::L,
          .lane_budget = E::lane_budget,
          .scratch_bytes = attend_scratch_bytes<E>,
          .attend = attend_task<E>,
          .packed_bytes = nullptr,
          .pack = nullptr,
          .tail_scratch_bytes = tail_scratch_bytes<I>,
          .tail = tail_head<I>,
          .pool = pool_rows<I>};
}

}  // namespace
}  // namespace prefill::kernels::cpu
