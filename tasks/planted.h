// Q, K, V whose attention is known by construction: sinks, heavy columns, diagonals and blocks at known
// places. For tests and for methods without a model: recall of the pattern can be scored, not only the error
// of the output.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace prefill {

struct PlantedSpec {
  int64_t tokens = 1024;
  int q_heads = 4, kv_heads = 2, head_dim = 64;
  int tile = 64;        ///< grid of the oracle mask
  int sinks = 2;        ///< first keys, seen by every query of every head
  int columns = 3;      ///< further keys seen by every later query (heads of kind columns)
  int diagonals = 2;    ///< offsets j = i - d (heads of kind diagonals)
  int blocks = 4;       ///< (query tile, key tile) rectangles (heads of kind blocks)
  double noise = 0.03;  ///< standard deviation of the logits of nothing with nothing
  uint64_t seed = 1;
};

/// What one query head attends to, besides the sinks. Query head h is of kind h % 3.
struct PlantedHead {
  enum Kind { columns, diagonals, blocks } kind;
  std::vector<int64_t> keys;                       ///< columns: key positions, ascending
  std::vector<int64_t> offsets;                    ///< diagonals: d in j = i - d, ascending
  std::vector<std::pair<int64_t, int64_t>> tiles;  ///< blocks: (query tile, key tile), key tile < query tile
};

struct Planted {
  Qkv qkv;                         ///< float32 on the CPU, scale 1/sqrt(head_dim)
  std::vector<PlantedHead> heads;  ///< [q_heads]
  /// bool [q_heads, rows, key_tiles]: tiles that hold what was planted, and the diagonal; nothing above it.
  /// With causal softmax attention these tiles hold nearly all of every row's mass.
  at::Tensor oracle;
};

/// Same spec, same bytes. Throws InputError for shapes that do not fit (head_dim < 48, q_heads not a multiple
/// of kv_heads, fewer than 4 tiles).
Planted planted(const PlantedSpec& spec);

}  // namespace prefill
