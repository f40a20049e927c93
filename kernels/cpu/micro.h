// Register-blocked micro-kernels over a panel of queries.
//
// Everything is transposed: queries lie in the vector lanes. A panel is lanes<I> queries of one head, kept as
// Q^T [dim][lanes] and O^T [dim][lanes]; scores are S^T [keys][lanes]. Then
//   S^T = K Q^T    broadcasts K's own rows,
//   O^T += V^T P^T broadcasts V's own rows,
// so neither K nor V is packed or transposed, a gathered key costs no more than a neighbouring one, and row
// maximum, row sum and rescaling are vertical operations without shuffles.
#pragma once
#include <math.h>

#include "kernels/cpu/rows.h"

namespace prefill::kernels::cpu {
namespace {

template <class I>
inline constexpr int lanes = I::width* I::vectors;

/// s[R][lanes] = bias + K[R][dim] Q^T; top: running maximum.
template <class I, int R>
inline void score_block(const float* k, int64_t ldk, const float* qt, int dim, float bias, float* s,
                        typename I::V* top) {
  constexpr int L = lanes<I>, NV = I::vectors, W = I::width;
  typename I::V acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = I::set1(bias);
  for (int d = 0; d < dim; ++d) {
    typename I::V q[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) q[v] = I::load(qt + d * L + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const typename I::V x = I::set1(k[r * ldk + d]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = I::fma(x, q[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      I::store(s + r * L + v * W, acc[r][v]);
      top[v] = I::max(top[v], acc[r][v]);
    }
}

/// o[R][lanes] = o * (scaled ? alpha : 1) + V^T[R][keys] P^T[keys][lanes], v pointing at the first of R columns.
template <class I, int R>
inline void value_block(const float* v, int64_t ldv, int keys, const float* p, const float* alpha, float* o) {
  constexpr int L = lanes<I>, NV = I::vectors, W = I::width;
  typename I::V acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int x = 0; x < NV; ++x) acc[r][x] = I::load(o + r * L + x * W);
  if (alpha) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int x = 0; x < NV; ++x) acc[r][x] = I::mul(acc[r][x], I::load(alpha + x * W));
  }
  for (int j = 0; j < keys; ++j) {
    typename I::V w[NV];
#pragma GCC unroll 4
    for (int x = 0; x < NV; ++x) w[x] = I::load(p + j * L + x * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const typename I::V b = I::set1(v[j * ldv + r]);
#pragma GCC unroll 4
      for (int x = 0; x < NV; ++x) acc[r][x] = I::fma(b, w[x], acc[r][x]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int x = 0; x < NV; ++x) I::store(o + r * L + x * W, acc[r][x]);
}

/// n = full blocks of I::rows, then blocks of 4 (and 8): every multiple of 4 is a sum of them without a rest,
/// and blocks of 4 are avoided where they would be many.
template <class I>
inline int full_rows(int n) {
  constexpr int R = I::rows;
  int full = n / R * R;
  while ((n - full) % 4) full -= R;
  return full;
}

/// Scores of a panel against `keys` rows of K (a multiple of 4).
template <class I>
inline void score_panel(const float* k, int64_t ldk, int keys, const float* qt, int dim, float bias, float* s,
                        typename I::V* top) {
  constexpr int R = I::rows, L = lanes<I>;
  const int full = full_rows<I>(keys);
  int j = 0;
  for (; j < full; j += R) score_block<I, R>(k + j * ldk, ldk, qt, dim, bias, s + j * L, top);
  for (; j < keys; j += 4) score_block<I, 4>(k + j * ldk, ldk, qt, dim, bias, s + j * L, top);
}

/// Accumulates values of a panel; dim is a multiple of 4. alpha [lanes] or null rescales what is there first.
template <class I>
inline void value_panel(const float* v, int64_t ldv, int keys, const float* p, int dim, const float* alpha,
                        float* ot) {
  constexpr int R = I::rows, L = lanes<I>;
  const int full = full_rows<I>(dim);
  int d = 0;
  for (; d < full; d += R) value_block<I, R>(v + d, ldv, keys, p, alpha, ot + d * L);
  for (; d < dim; d += 4) value_block<I, 4>(v + d, ldv, keys, p, alpha, ot + d * L);
}

/// s -> exp(s - max) in place; adds the sums of the lanes to sum[].
template <class I>
inline void exp_panel(float* s, int keys, const float* max, typename I::V* sum) {
  constexpr int L = lanes<I>, NV = I::vectors, W = I::width;
  const auto log2e = I::set1(kLog2e);
  typename I::V m[NV];
  for (int v = 0; v < NV; ++v) m[v] = I::mul(I::load(max + v * W), I::set1(-kLog2e));
  for (int j = 0; j < keys; ++j) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const auto e = exp2_of<I>(I::fma(I::load(s + j * L + v * W), log2e, m[v]));
      I::store(s + j * L + v * W, e);
      sum[v] = I::add(sum[v], e);
    }
  }
}

}  // namespace
}  // namespace prefill::kernels::cpu
