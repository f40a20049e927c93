// The decoder of Llama, Mistral, Qwen2 and Qwen3: they differ in biases, in q and k norms, and in RoPE only.
//
// Everything but attention runs over chunks of tokens, so that temporaries stay in cache on a CPU and small
// on a GPU; attention sees the whole prompt through the hook. Several ranks share a model as shard.h says:
// each computes its heads and MLP columns, and their parts of the two sums of a layer are added up over the
// ranks. The residual stream and the norms are float32 in every dtype: transformers rounds them to bfloat16
// after every block, and its best token then differs from its own float32 run at 2.8 % of the positions of a
// 1,000-token text (SmolLM2-135M-Instruct with adapter).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/kv_cache.h"
#include "core/model/layer_ops.h"
#include "core/model/linear.h"
#include "core/model/model.h"
#include "core/model/rope.h"
#include "core/model/shard.h"

namespace prefill {
namespace {

struct Layer {
  at::Tensor input_norm, post_norm, q_norm, k_norm;
  Linear qkv, o, gate_up, down;
};

class Decoder final : public Model {
 public:
  Decoder(const std::string& folder, const ModelOptions& options);

  const ModelShape& shape() const override { return shape_; }
  HeadRange heads() const override {
    return ranks_ ? HeadRange{int(shard_.q_heads.begin), int(hq_)} : HeadRange{};
  }
  int64_t max_tokens() const override { return max_tokens_; }
  std::string dtype() const override {
    return policy_.compute == at::kFloat ? "float32" : policy_.compute == at::kHalf ? "float16" : "bfloat16";
  }
  int64_t parameter_count() const override { return parameters_; }
  bool random_weights() const override { return config_.random_weights(); }
  std::vector<int32_t> eos_ids() const override { return config_.eos; }
  at::Tensor prefill(const std::vector<int32_t>& ids, AttentionHook& hook, Logits wanted) override;
  at::Tensor prefill_hidden(const std::vector<int32_t>& ids, AttentionHook& hook) override {
    return run_layers(ids, hook, /*last_only=*/false);
  }
  at::Tensor logits(const at::Tensor& hidden) const override;
  at::Tensor decode(int32_t id) override;
  void reset() override { cache_.clear(); }

 private:
  void load(const Checkpoint&);
  /// Tokens per chunk. On a CPU its temporaries should fit into the second and third level cache; on a GPU the
  /// largest, gate|up, may take 256 MiB: small models need many tokens to be worth a launch.
  int64_t chunk_for(at::Device device) const {
    if (device.is_cpu()) return 512;
    const int64_t bytes = 2 * shard_.mlp.size() * int64_t(c10::elementSize(policy_.stored));
    return std::max<int64_t>(1024, (int64_t(256) << 20) / bytes / 1024 * 1024);
  }
  void check_ids(const std::vector<int32_t>& ids) const;
  at::Tensor embed(const std::vector<int32_t>& ids) const;
  /// Residual stream x [m, hidden] -> q [m, Hq, D] and k, v [Hkv, m, D] of this rank's heads, q and k rotated.
  void project(const Layer&, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, at::Tensor q,
               at::Tensor k, at::Tensor v) const;
  /// x += o(attention); x += mlp(norm(x)), in place. attention [m, Hq*D].
  void finish_layer(const Layer&, at::Tensor x, const at::Tensor& attention) const;
  /// y [m, hidden], this rank's part of a sum over the ranks -> the sum.
  at::Tensor sum(at::Tensor y) const {
    if (ranks_) ranks_->all_reduce(y);
    return y;
  }
  /// Prefill up to the final norm -> residual stream [n, hidden]; last_only: of the last token [1, hidden].
  at::Tensor run_layers(const std::vector<int32_t>& ids, AttentionHook& hook, bool last_only);
  /// q [Hkv, group, D], one token -> [Hkv, group, D] over the first n keys of layer l's cache.
  at::Tensor attend_cache(const at::Tensor& q, int64_t l, int64_t n) const;

  ModelConfig config_;
  ModelShape shape_;
  WeightPolicy policy_;
  Communicator* ranks_;
  Shard shard_;
  int64_t hq_ = 0, hkv_ = 0;  ///< heads of this rank
  int64_t max_tokens_ = 0, chunk_ = 0, parameters_ = 0;
  at::Tensor embedding_, head_, norm_;
  std::vector<Layer> layers_;
  RopeTable rope_;
  KvCache cache_;
};

std::string folder_name(const std::string& folder) {
  const auto end = folder.find_last_not_of('/');
  const std::string trimmed = folder.substr(0, end + 1);
  return trimmed.substr(trimmed.find_last_of('/') + 1);
}

ModelShape shape_of(const std::string& folder, const ModelConfig& c) {
  return {folder_name(folder), int(c.layers), int(c.q_heads), int(c.kv_heads), int(c.head_dim), c.rope.theta};
}

Decoder::Decoder(const std::string& folder, const ModelOptions& options)
    : config_(read_model_config(folder)),
      ranks_(options.ranks),
      shard_(shard_of(config_, ranks_ ? ranks_->rank() : 0, ranks_ ? ranks_->size() : 1)),
      hq_(shard_.q_heads.size()),
      hkv_(shard_.kv_heads.size()),
      rope_(config_.rope, config_.head_dim, config_.max_positions, options.device),
      cache_(config_.layers, hkv_, config_.head_dim, at::TensorOptions()) {
  const at::NoGradGuard no_grad;
  const Checkpoint checkpoint =
      config_.random_weights() ? Checkpoint::random(config_.random_seed) : Checkpoint::open(folder);
  policy_ = choose_policy(options.dtype, options.device, checkpoint, config_.stored_dtype);
  cache_ = KvCache(config_.layers, hkv_, config_.head_dim,
                   at::TensorOptions().dtype(policy_.compute).device(options.device));
  chunk_ = options.mlp_chunk > 0 ? options.mlp_chunk : chunk_for(options.device);
  max_tokens_ = options.max_tokens > 0 ? options.max_tokens : config_.context_length();
  if (config_.sliding_window > 0) max_tokens_ = std::min(max_tokens_, config_.sliding_window);
  shape_ = shape_of(folder, config_);
  load(checkpoint);
  if (shard_.rank == 0) shape_.fingerprint = weights_fingerprint(folder);  // one rank's look is enough
}

void Decoder::load(const Checkpoint& c) {
  for (const auto& [name, shape] : expected_tensors(config_)) {
    c.require(name, shape);  // before gigabytes are read
    parameters_ += c10::multiply_integers(shape);
  }
  if (!c.is_random()) refuse_unused_tensors(config_, c);
  const int64_t d = config_.head_dim, q = config_.q_heads * d, kv = config_.kv_heads * d;
  const Range own_q = {shard_.q_heads.begin * d, shard_.q_heads.end * d},
              own_kv = {shard_.kv_heads.begin * d, shard_.kv_heads.end * d};
  const int64_t hidden = config_.hidden, mid = config_.intermediate;
  WeightPolicy small = policy_;
  small.stored = at::kFloat;  // norms are applied in float32
  embedding_ = load_weight(c, "model.embed_tokens.weight", {config_.vocab, hidden}, policy_);
  head_ = config_.tied ? embedding_ : load_weight(c, "lm_head.weight", {config_.vocab, hidden}, policy_);
  norm_ = load_weight(c, "model.norm.weight", {hidden}, small);
  for (int64_t i = 0; i < config_.layers; ++i) {
    const std::string at = str("model.layers.", i, ".");
    Layer layer;
    layer.input_norm = load_weight(c, at + "input_layernorm.weight", {hidden}, small);
    layer.post_norm = load_weight(c, at + "post_attention_layernorm.weight", {hidden}, small);
    if (config_.qk_norm) {
      layer.q_norm = load_weight(c, at + "self_attn.q_norm.weight", {config_.head_dim}, small);
      layer.k_norm = load_weight(c, at + "self_attn.k_norm.weight", {config_.head_dim}, small);
    }
    const std::string attention = at + "self_attn.", mlp = at + "mlp.";
    const Range whole = {0, hidden};
    const bool first = shard_.rank == 0;  // a bias behind a sum over the ranks is added once
    layer.qkv = Linear(c,
                       {{attention + "q_proj", q, own_q},
                        {attention + "k_proj", kv, own_kv},
                        {attention + "v_proj", kv, own_kv}},
                       hidden, whole, config_.qkv_bias, policy_);
    layer.o = Linear(c, {{attention + "o_proj", hidden, whole}}, q, own_q, config_.o_bias && first, policy_);
    layer.gate_up = Linear(c, {{mlp + "gate_proj", mid, shard_.mlp}, {mlp + "up_proj", mid, shard_.mlp}},
                           hidden, whole, config_.mlp_bias, policy_);
    layer.down =
        Linear(c, {{mlp + "down_proj", hidden, whole}}, mid, shard_.mlp, config_.mlp_bias && first, policy_);
    layers_.push_back(std::move(layer));
  }
}

void Decoder::check_ids(const std::vector<int32_t>& ids) const {
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= config_.vocab)
      throw InputError(str("token ", i, " of the prompt has id ", ids[i], ", outside the vocabulary of ",
                           shape_.id, " [0, ", config_.vocab, "); is this the model's own tokenizer?"));
}

at::Tensor Decoder::embed(const std::vector<int32_t>& ids) const {
  const at::Tensor index = at::tensor(ids, at::kInt).to(policy_.device);
  return embedding_.index_select(0, index).to(at::kFloat);
}

void Decoder::project(const Layer& layer, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                      at::Tensor q, at::Tensor k, at::Tensor v) const {
  split_heads(layer.qkv(rms_norm(x, layer.input_norm, config_.norm_eps, policy_.stored)),
              {layer.q_norm, layer.k_norm, config_.norm_eps}, cos, sin, q, k, v);
}

void Decoder::finish_layer(const Layer& layer, at::Tensor x, const at::Tensor& attention) const {
  const at::Tensor normed =
      add_rms_norm(x, sum(layer.o(attention)), layer.post_norm, config_.norm_eps, policy_.stored);
  add_to(x, sum(layer.down(silu_mul(layer.gate_up(normed)))));
}

// The products keep float32 results, since bfloat16 ones tie among the best tokens.
at::Tensor Decoder::logits(const at::Tensor& x) const {
  const at::NoGradGuard no_grad;
  const at::Tensor h = rms_norm(x, norm_, config_.norm_eps, policy_.stored);
  if (head_.scalar_type() == at::kFloat) return at::linear(h.to(at::kFloat), head_);
  if (!policy_.device.is_cpu()) return at::mm(h, head_.t(), at::kFloat);
  const int64_t rows = 8192;
  at::Tensor out = at::empty({x.size(0), config_.vocab}, at::kFloat);
  for (int64_t r = 0; r < config_.vocab; r += rows) {
    const int64_t end = std::min(r + rows, config_.vocab);
    out.slice(1, r, end).copy_(at::linear(h.to(at::kFloat), head_.slice(0, r, end).to(at::kFloat)));
  }
  return out;
}

at::Tensor Decoder::run_layers(const std::vector<int32_t>& ids, AttentionHook& hook, bool last_only) {
  const at::NoGradGuard no_grad;
  const auto n = int64_t(ids.size());
  if (n == 0) throw InputError("the prompt is empty: at least one token is needed");
  if (n > max_tokens_)
    throw InputError(
        str("the prompt has ", n, " tokens, but ", shape_.id, " takes ", max_tokens_, " (",
            config_.context_limit(), " of ", config_.file,
            config_.sliding_window > 0 ? "; attention past a sliding window is not supported)" : ")"));
  check_ids(ids);
  cache_.start(n);
  const auto [cos, sin] = rope_.rows(0, n);
  at::Tensor x = embed(ids);
  const int64_t hq = hq_, d = config_.head_dim;
  at::Tensor queries = at::empty({n, hq, d}, x.options().dtype(policy_.compute));
  for (int64_t l = 0; l < config_.layers; ++l) {
    const Layer& layer = layers_[size_t(l)];
    for (int64_t begin = 0; begin < n; begin += chunk_) {
      const int64_t end = std::min(begin + chunk_, n);
      const auto [k, v] = cache_.rows(l, begin, end);
      project(layer, x.slice(0, begin, end), cos.slice(0, begin, end), sin.slice(0, begin, end),
              queries.slice(0, begin, end), k, v);
    }
    const Qkv qkv{queries.transpose(0, 1), cache_.keys(l, n), cache_.values(l, n),
                  1.0 / std::sqrt(double(d))};
    const at::Tensor attention = hook.prefill(int(l), qkv).transpose(0, 1);  // [N, Hq, D]
    // nothing reads the last layer's other tokens when only the last logits are wanted
    const int64_t first = last_only && l + 1 == config_.layers ? n - 1 : 0;
    for (int64_t begin = first; begin < n; begin += chunk_) {
      const int64_t end = std::min(begin + chunk_, n);
      finish_layer(layer, x.slice(0, begin, end),
                   attention.slice(0, begin, end).reshape({end - begin, hq * d}));
    }
  }
  cache_.set_length(n);
  return last_only ? x.slice(0, n - 1, n) : x;
}

at::Tensor Decoder::prefill(const std::vector<int32_t>& ids, AttentionHook& hook, Logits wanted) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = run_layers(ids, hook, wanted == Logits::last);
  if (wanted == Logits::last) return logits(x);
  const int64_t n = x.size(0);
  at::Tensor out = at::empty({n, config_.vocab}, x.options().dtype(at::kFloat));
  for (int64_t begin = 0; begin < n; begin += chunk_) {
    const int64_t end = std::min(begin + chunk_, n);
    out.slice(0, begin, end).copy_(logits(x.slice(0, begin, end)));
  }
  return out;
}

at::Tensor Decoder::attend_cache(const at::Tensor& q, int64_t l, int64_t n) const {
  const at::Tensor k = cache_.keys(l, n), v = cache_.values(l, n);
  const at::Tensor q4 = q.unsqueeze(0), k4 = k.unsqueeze(0), v4 = v.unsqueeze(0);
  if (policy_.device.is_cpu() || policy_.compute == at::kFloat || q.size(2) % 8 != 0)
    return at::scaled_dot_product_attention(q4, k4, v4).squeeze(0);
  // By name, since the dispatcher would take cuDNN's kernel, which makes a new plan for every length; this
  // one splits the keys over the multiprocessors when there are few rows.
  return std::get<0>(at::_scaled_dot_product_flash_attention(q4, k4, v4)).squeeze(0);
}

at::Tensor Decoder::decode(int32_t id) {
  const at::NoGradGuard no_grad;
  const int64_t at = cache_.length();
  if (at == 0) throw std::logic_error("Model::decode before Model::prefill");
  if (config_.sliding_window > 0 && at + 1 > config_.sliding_window)
    throw InputError(str("the text passes ", config_.sliding_window, " tokens (sliding_window of ",
                         config_.file, "); attention past a sliding window is not supported"));
  check_ids({id});
  cache_.grow();
  const auto [cos, sin] = rope_.rows(at, at + 1);
  at::Tensor x = embed({id});
  const int64_t hq = hq_, hkv = hkv_, d = config_.head_dim;
  const at::Tensor q = at::empty({1, hq, d}, x.options().dtype(policy_.compute));
  for (int64_t l = 0; l < config_.layers; ++l) {
    const Layer& layer = layers_[size_t(l)];
    const auto [k, v] = cache_.rows(l, at, at + 1);
    project(layer, x, cos, sin, q, k, v);
    // the query heads of a group stand where the rows of one head would: every key is read once per group
    finish_layer(layer, x, attend_cache(q.view({hkv, hq / hkv, d}), l, at + 1).reshape({1, hq * d}));
  }
  cache_.set_length(at + 1);
  return logits(x);
}

}  // namespace

std::unique_ptr<Model> load_model(const std::string& folder, const ModelOptions& options) {
  return std::make_unique<Decoder>(folder, options);
}

ModelShape read_model_shape(const std::string& folder) {
  const ModelConfig config = read_model_config(folder);
  if (!config.random_weights()) Checkpoint::open(folder);
  ModelShape shape = shape_of(folder, config);
  shape.fingerprint = weights_fingerprint(folder);
  return shape;
}

}  // namespace prefill
