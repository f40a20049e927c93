// config.json and generation_config.json of a Hugging Face folder, as far as a decoder needs them.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace prefill {

/// Rotary position embedding. Formulas in rope.h.
struct RopeConfig {
  std::string type = "default";  ///< default | linear | dynamic | llama3 | yarn
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
  int64_t original_max = 0;                          ///< llama3, yarn: context length before scaling
  double attention_factor = -1;                      ///< yarn; < 0: by formula
  double beta_fast = 32, beta_slow = 1, mscale = 0, mscale_all_dim = 0;
  bool truncate = true;  ///< yarn: round the correction range to whole dimensions
};

struct ModelConfig {
  std::string file;          ///< path of config.json, for messages
  std::string family;        ///< llama | mistral | qwen2 | qwen3
  std::string stored_dtype;  ///< torch_dtype of the config, "" when it does not say
  int64_t hidden = 0, intermediate = 0, layers = 0, q_heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  double norm_eps = 1e-6;
  int64_t max_positions = 0;   ///< max_position_embeddings
  int64_t sliding_window = 0;  ///< 0: every layer sees every earlier token
  bool qkv_bias = false, o_bias = false, mlp_bias = false, qk_norm = false, tied = false;
  RopeConfig rope;
  /// "prefillbench": {"weights": "random", "seed": 1} in config.json: no weights are read, they are drawn
  /// when the model is loaded (core/model/linear.h). For timing shapes whose weights are not here. Negative:
  /// real weights.
  int64_t random_seed = -1;
  bool random_weights() const { return random_seed >= 0; }
  std::vector<int32_t> eos;  ///< of generation_config.json, else of config.json

  /// Longest sequence the checkpoint is meant for: max_position_embeddings, stretched by RoPE scaling where
  /// the scaling is stated relative to it (linear, dynamic, yarn), and cut at the sliding window: inside the
  /// window sliding and full attention are the same, past it this program would compute something else.
  int64_t context_length() const;
  /// What ends the context, for messages: "max_position_embeddings" or "sliding_window".
  const char* context_limit() const;
};

/// Throws InputError naming the file and the key that is missing, of the wrong type, or asks for something
/// that is not implemented (another architecture, another activation, longrope, quantised weights, ...).
ModelConfig read_model_config(const std::string& folder);

/// Names and shapes of the tensors that a checkpoint of this configuration must hold, in order of use.
std::vector<std::pair<std::string, std::vector<int64_t>>> expected_tensors(const ModelConfig&);

class Checkpoint;
/// Throws InputError when the checkpoint's layers hold a tensor that this configuration does not use:
/// ignoring a bias or a norm would give wrong results without a word. Tensors known to be harmless (rotary
/// buffers, a tied head) pass.
void refuse_unused_tensors(const ModelConfig&, const Checkpoint&);

}  // namespace prefill
