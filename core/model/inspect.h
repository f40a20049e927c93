// What is right and wrong with a model folder, found without loading the weights.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace prefill {

struct ModelFinding {
  enum Level { ok, warning, error } level;
  std::string what;    ///< "config", "tensors", "tokenizer", "chat template", "memory", ...
  std::string detail;  ///< one line
};

/// Checks configuration, every tensor's presence, shape and dtype, tokenizer and chat template, and estimates
/// memory at several prompt lengths. Reads headers only: seconds for a checkpoint of any size, and NaN
/// weights are not found (loading finds them). Never throws for what is wrong with the folder: that is a
/// finding.
std::vector<ModelFinding> check_model_folder(const std::string& folder);

/// Bytes that prefilling `tokens` takes in a dtype of `item_bytes`: weights, KV cache, and the largest
/// temporaries (hidden states, queries and attention output of one layer), without the attention kernel's
/// own.
uint64_t prefill_bytes(uint64_t weight_count, int64_t layers, int64_t hidden, int64_t q_heads,
                       int64_t kv_heads, int64_t head_dim, int64_t tokens, int item_bytes);

}  // namespace prefill
