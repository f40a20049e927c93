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
/// memory at several prompt lengths. Weights of up to `read_up_to` bytes are also read, one tensor after the
/// other, for NaN and infinity; of larger ones only the headers are, which a finding says. Never throws for
/// what is wrong with the folder: that is a finding.
std::vector<ModelFinding> check_model_folder(const std::string& folder, uint64_t read_up_to = UINT64_MAX);

/// Bytes that prefilling `tokens` takes in a dtype of `item_bytes`: weights, KV cache, and the largest
/// temporaries (hidden states, queries and attention output of one layer), without the attention kernel's
/// own.
uint64_t prefill_bytes(uint64_t weight_count, int64_t layers, int64_t hidden, int64_t q_heads,
                       int64_t kv_heads, int64_t head_dim, int64_t tokens, int item_bytes);

}  // namespace prefill
