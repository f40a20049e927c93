// Rotary position embedding (Su et al., arXiv 2104.09864) with the scalings that long-context checkpoints
// use. The rotation pairs dimension d with d + head_dim/2, as Hugging Face checkpoints store their q and k
// rows.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/model/config.h"

namespace prefill {

/// Cosines and sines of all positions, grown as needed. Values are those of transformers (same order of
/// float32 operations), so that logits agree closely at long range:
///   default  theta^(-2i/D)
///   linear   divided by factor (position interpolation, arXiv 2306.15595)
///   dynamic  NTK-aware base that grows with the sequence once it passes max_position_embeddings
///   llama3   low frequencies divided by factor, high ones kept, a ramp between (Llama 3.1)
///   yarn     NTK-by-parts ramp and a factor on cos and sin (arXiv 2309.00071)
class RopeTable {
 public:
  RopeTable(const RopeConfig&, int64_t head_dim, int64_t max_positions, at::Device);
  /// Positions [begin, end) of a sequence that is `end` long so far: {cos, sin} [end-begin, head_dim/2]
  /// float32.
  std::pair<at::Tensor, at::Tensor> rows(int64_t begin, int64_t end);
  double attention_factor() const { return attention_factor_; }

 private:
  at::Tensor inverse_frequencies(int64_t seq_len) const;
  RopeConfig config_;
  int64_t head_dim_, max_positions_;
  at::Device device_;
  double attention_factor_ = 1;
  int64_t dynamic_length_ = 0;  ///< sequence length that the table was made for (dynamic only)
  at::Tensor cos_, sin_;
};

/// x [n, heads, head_dim] in place, rows p rotated by cos, sin [n, head_dim/2]; computed in float32.
void apply_rope(at::Tensor x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace prefill
