// A decoder layer's steps between its products, part of the surface that api.h describes: same conventions, same status codes.
#pragma once
#include "kernels/api.h"

namespace prefill::kernels {

/// x += y (where y is not null), then out = x / sqrt(mean(x^2) + eps) * weight over each row (where out is not null).
/// cols a multiple of 8 up to 8192; x and weight float32, y and out of one 16-bit type; rows contiguous, 16-byte aligned.
struct NormArgs {
  float* x;             ///< [rows, cols]; written only where y is added
  const void* y;        ///< [rows, cols] or null
  const float* weight;  ///< [cols]
  void* out;            ///< [rows, cols] or null
  Dtype dtype;          ///< of y and out
  int64_t rows, cols;
  float eps;
};
Result add_rms_norm_cuda(const NormArgs&, void* stream);

/// One row of a q|k|v product per token, split by head: q and k are normalised over head_dim where their weights are not
/// null (rounded to the dtype as Qwen3's are), rotated by cos and sin (dimension d with d + dim/2), v is copied.
/// dim a multiple of 16, a power of two where there are weights; all strides multiples of 8 elements, 16-byte aligned.
struct SplitHeadsArgs {
  const void* all;  ///< [rows, (q_heads + 2 kv_heads) * dim] contiguous
  Dtype dtype;      ///< bf16 or f16, of everything but the tables and weights
  int q_heads, kv_heads, dim;
  int64_t rows;
  const float *cos, *sin;        ///< [rows, dim/2] contiguous
  const float *q_norm, *k_norm;  ///< [dim] each, or null both
  float eps;
  void *q, *k, *v;
  int64_t q_head_stride, q_row_stride, k_head_stride, k_row_stride, v_head_stride, v_row_stride;
};
Result split_heads_cuda(const SplitHeadsArgs&, void* stream);

/// out [rows, cols] = silu(both[:, :cols]) * both[:, cols:], both [rows, 2 cols] contiguous, bf16 or f16; cols a multiple of 8.
Result silu_mul_cuda(const void* both, void* out, Dtype, int64_t rows, int64_t cols, void* stream);

}  // namespace prefill::kernels
