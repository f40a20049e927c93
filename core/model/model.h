// A decoder-only language model: sparse or dense prefill through a hook, greedy decoding always dense.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/model/communicator.h"

namespace prefill {

struct ModelOptions {
  std::string dtype = "auto";  ///< auto | float32 | bfloat16 | float16. auto: bfloat16 where the device has
                               ///< fast bfloat16 products, else float32
  at::Device device = at::kCPU;
  int64_t mlp_chunk = 0;   ///< tokens per chunk of everything but attention (bounds memory); 0: by device
  int64_t max_tokens = 0;  ///< 0: the checkpoint's own limit
  /// The ranks that share the model's heads and MLP columns, each with a part of the weights; null: this
  /// process has the whole model. Must outlive the model.
  Communicator* ranks = nullptr;
};

enum class Logits { last, all };

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelShape& shape() const = 0;  ///< of the whole model
  virtual HeadRange heads() const {
    return {};
  }  ///< the query heads that reach a hook's Qkv here; count 0: all
  MethodEnv method_env() const { return {shape(), heads()}; }
  /// The shape that a kernel sees here.
  ModelShape own_shape() const {
    ModelShape s = shape();
    if (const int count = heads().count) s.kv_heads = count / (s.q_heads / s.kv_heads), s.q_heads = count;
    return s;
  }
  virtual int64_t max_tokens() const = 0;       ///< context length
  virtual std::string dtype() const = 0;        ///< float32 | bfloat16 | float16
  virtual int64_t parameter_count() const = 0;  ///< weights of the linear layers and norms (embedding once)
  virtual bool random_weights() const { return false; }  ///< drawn: times count, answers do not
  virtual std::vector<int32_t> eos_ids() const = 0;      ///< config.json and generation_config.json
  /// Fills the KV cache. -> float32 logits [1, vocab] (last) or [n, vocab] (all).
  virtual at::Tensor prefill(const std::vector<int32_t>& ids, AttentionHook&, Logits = Logits::last) = 0;
  /// Fills the KV cache. -> the residual stream behind the last layer of every token, float32 [n, hidden], on
  /// the model's device: what logits() takes, for prompts whose logits would not fit ([n, vocab]).
  virtual at::Tensor prefill_hidden(const std::vector<int32_t>& ids, AttentionHook&) = 0;
  /// float32 logits [m, vocab] of rows [m, hidden] of prefill_hidden(); row i predicts the token behind token
  /// i.
  virtual at::Tensor logits(const at::Tensor& hidden) const = 0;
  /// One more token after prefill (dense attention over the cache) -> logits [1, vocab].
  virtual at::Tensor decode(int32_t id) = 0;
  /// Drops the KV cache.
  virtual void reset() = 0;
};

/// Opens a Hugging Face folder (config.json, *.safetensors, or random weights: core/model/config.h). Throws
/// InputError naming the missing or misshaped tensor, file and place.
std::unique_ptr<Model> load_model(const std::string& folder, const ModelOptions&);

/// The shape() that load_model() would give, fingerprint included, without loading the weights. Throws
/// InputError for what config.json and the headers of the weights show to be wrong.
ModelShape read_model_shape(const std::string& folder);

}  // namespace prefill
