// Which part of a model a rank holds: Megatron's split (Shoeybi et al., arXiv 1909.08053). Columns of q, k,
// v, gate and up, rows of o and down; embedding, norms and output head whole on every rank.
#pragma once
#include "core/model/config.h"

namespace prefill {

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

struct Shard {
  int rank = 0, size = 1;
  Range q_heads, kv_heads, mlp;  ///< heads and columns of the MLP, by their numbers in the whole model
};

/// Whole key/value groups; where they do not divide evenly the first ranks have one more. MLP columns in
/// multiples of 64 where there are enough. Throws InputError when there are fewer key/value heads than ranks.
Shard shard_of(const ModelConfig&, int rank, int size);

}  // namespace prefill
