// Keys and values of one sequence, all layers.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace prefill {

/// Kept head by head, [kv_heads, capacity, head_dim], so that a head's keys are contiguous for attention
/// kernels. Memory is allocated once and reused by later prompts that fit; it grows by copying when decoding
/// outruns it.
class KvCache {
 public:
  KvCache(int64_t layers, int64_t heads, int64_t head_dim, at::TensorOptions);
  /// Forgets the contents and makes room for n tokens and some more.
  void start(int64_t n);
  void clear() { length_ = 0; }
  int64_t length() const { return length_; }
  void set_length(int64_t n) { length_ = n; }
  /// Makes room for one more token.
  void grow();
  /// Views [heads, n, head_dim] of positions [0, n).
  at::Tensor keys(int64_t layer, int64_t n) const;
  at::Tensor values(int64_t layer, int64_t n) const;
  /// Keys and values [heads, end-begin, head_dim] of a layer's positions [begin, end), to be written to.
  std::pair<at::Tensor, at::Tensor> rows(int64_t layer, int64_t begin, int64_t end);

 private:
  void allocate(int64_t capacity);
  int64_t heads_, head_dim_, capacity_ = 0, length_ = 0;
  at::TensorOptions options_;
  std::vector<at::Tensor> k_, v_;
};

}  // namespace prefill
