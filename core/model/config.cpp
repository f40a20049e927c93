#include "core/model/config.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/checkpoint.h"

namespace prefill {
namespace {

using nlohmann::json;

/// Reads typed keys of one JSON object and says where it went wrong.
class Keys {
 public:
  Keys(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  const json& raw(const char* key) const { return object_[key]; }
  template <class... T>
  [[noreturn]] void fail(const T&... parts) const {
    throw InputError(str(where_, ": ", parts...));
  }
  int64_t size(const char* key) const {
    if (!has(key)) fail("'", key, "' is missing");
    return size(key, 0);
  }
  int64_t size(const char* key, int64_t fallback) const {
    if (!has(key)) return fallback;
    const json& v = object_[key];
    if (!v.is_number_integer() || v.get<double>() < 1 || v.get<double>() > 1e12)
      fail("'", key, "' is ", v.dump(), ", expected a positive integer");
    return v.get<int64_t>();
  }
  double number(const char* key) const {
    if (!has(key)) fail("'", key, "' is missing");
    return number(key, 0);
  }
  double number(const char* key, double fallback) const {
    if (!has(key)) return fallback;
    if (!object_[key].is_number()) fail("'", key, "' is ", object_[key].dump(), ", expected a number");
    return object_[key].get<double>();
  }
  bool flag(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!object_[key].is_boolean()) fail("'", key, "' is ", object_[key].dump(), ", expected true or false");
    return object_[key].get<bool>();
  }
  std::string text(const char* key, const std::string& fallback) const {
    if (!has(key)) return fallback;
    if (!object_[key].is_string()) fail("'", key, "' is ", object_[key].dump(), ", expected a string");
    return object_[key].get<std::string>();
  }
  /// One id or a list of them.
  std::vector<int32_t> ids(const char* key) const {
    std::vector<int32_t> out;
    if (!has(key)) return out;
    const json list = object_[key].is_array() ? object_[key] : json::array({object_[key]});
    for (const auto& id : list) {
      if (!id.is_number_integer() || id.get<double>() < -1 || id.get<double>() > INT32_MAX)
        fail("'", key, "' is ", object_[key].dump(), ", expected token ids");
      if (id.get<int64_t>() >= 0) out.push_back(id.get<int32_t>());
    }
    return out;
  }

 private:
  const json& object_;
  std::string where_;
};

json read_json_object(const std::string& path) {
  const std::string bytes = read_file(path);
  json value;
  try {
    value = json::parse(bytes);
  } catch (const json::exception& e) {
    throw InputError(str(path, ": not valid JSON: ", e.what()));
  }
  if (!value.is_object()) throw InputError(str(path, ": not a JSON object"));
  return value;
}

struct Family {
  const char *model_type, *architecture;
};
constexpr Family kFamilies[] = {{"llama", "LlamaForCausalLM"},
                                {"mistral", "MistralForCausalLM"},
                                {"qwen2", "Qwen2ForCausalLM"},
                                {"qwen3", "Qwen3ForCausalLM"}};

std::string read_family(const Keys& c) {
  std::string architecture;
  if (c.has("architectures")) {
    const json& list = c.raw("architectures");
    if (!list.is_array() || list.size() != 1 || !list[0].is_string())
      c.fail("'architectures' is ", list.dump(), ", expected a list of one name");
    architecture = list[0].get<std::string>();
  }
  const std::string type = c.text("model_type", "");
  if (architecture.empty() && type.empty()) c.fail("'architectures' and 'model_type' are missing");
  std::string known;
  for (const auto& f : kFamilies) {
    if (architecture.empty() ? type == f.model_type : architecture == f.architecture) {
      if (!type.empty() && type != f.model_type)
        c.fail("'model_type' is ", type, ", which does not belong to ", f.architecture);
      return f.model_type;
    }
    known += str(known.empty() ? "" : ", ", f.architecture);
  }
  c.fail(architecture.empty() ? "'model_type' is " + type : "'architectures' is " + architecture,
         "; supported are ", known);
}

/// Keys that change what the network computes and that are not implemented: refused rather than ignored.
void refuse_unsupported(const Keys& c) {
  if (c.has("quantization_config")) c.fail("'quantization_config': quantised checkpoints are not supported");
  if (const auto act = c.text("hidden_act", "silu"); act != "silu" && act != "swish")
    c.fail("'hidden_act' is ", act, "; only silu is supported");
  if (c.number("partial_rotary_factor", 1) != 1)
    c.fail("'partial_rotary_factor' other than 1 is not supported");
  for (const char* key : {"num_experts", "num_local_experts"})
    if (c.number(key, 0) > 1) c.fail("'", key, "': mixtures of experts are not supported");
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (c.number(key, 0) != 0) c.fail("'", key, "' is not supported");
}

RopeConfig read_rope(const Keys& c, const std::string& file, int64_t max_positions) {
  RopeConfig r;
  r.theta = c.number("rope_theta", 10000);
  // transformers 5 writes rope_parameters with everything in it; before, rope_scaling stood beside rope_theta
  const char* where = c.has("rope_scaling")      ? "rope_scaling"
                      : c.has("rope_parameters") ? "rope_parameters"
                                                 : nullptr;
  if (!where) return r;
  if (!c.raw(where).is_object()) c.fail("'", where, "' is not an object");
  const Keys s(c.raw(where), str(file, ": ", where));
  r.theta = s.number("rope_theta", r.theta);
  r.type = s.text("rope_type", s.text("type", "default"));
  if (s.number("partial_rotary_factor", 1) != 1)
    s.fail("'partial_rotary_factor' other than 1 is not supported");
  const std::vector<std::string> known = {"default", "linear", "dynamic", "llama3", "yarn"};
  if (std::find(known.begin(), known.end(), r.type) == known.end())
    s.fail("rope type '", r.type, "' is not supported; known are default, linear, dynamic, llama3, yarn");
  if (!(r.theta > 1)) s.fail("'rope_theta' is ", r.theta, ", expected a number above 1");
  if (r.type == "default") return r;
  r.original_max =
      c.size("original_max_position_embeddings", s.size("original_max_position_embeddings", max_positions));
  if (r.type == "yarn" && !s.has("factor"))
    r.factor = double(max_positions) / double(r.original_max);
  else
    r.factor = s.number("factor");
  if (!(r.factor >= 1)) s.fail("'factor' is ", r.factor, ", expected a number of at least 1");
  if (r.type == "llama3") {
    r.low_freq_factor = s.number("low_freq_factor"), r.high_freq_factor = s.number("high_freq_factor");
    if (!(r.low_freq_factor > 0 && r.high_freq_factor > r.low_freq_factor))
      s.fail("'low_freq_factor' must be positive and below 'high_freq_factor'");
  }
  if (r.type == "yarn") {
    r.attention_factor = s.number("attention_factor", -1);
    if (const double fast = s.number("beta_fast", 32); fast != 0) r.beta_fast = fast;
    if (const double slow = s.number("beta_slow", 1); slow != 0) r.beta_slow = slow;
    r.mscale = s.number("mscale", 0), r.mscale_all_dim = s.number("mscale_all_dim", 0);
    r.truncate = s.flag("truncate", true);
  }
  return r;
}

/// Mistral's key alone switches the window on, Qwen's needs use_sliding_window, and there only layers from
/// max_window_layers on use it.
int64_t read_sliding_window(const Keys& c, const ModelConfig& m) {
  if (m.family == "llama" || !c.has("sliding_window")) return 0;
  const int64_t window = c.size("sliding_window");
  if (m.family == "mistral") return window;
  if (!c.flag("use_sliding_window", false)) return 0;
  if (c.has("layer_types")) {
    const json& types = c.raw("layer_types");
    return types.is_array() && std::find(types.begin(), types.end(), "sliding_attention") != types.end()
               ? window
               : 0;
  }
  return c.number("max_window_layers", 28) < double(m.layers) ? window : 0;
}

int64_t read_random_seed(const Keys& c, const std::string& file) {
  if (!c.has("prefillbench")) return -1;
  if (!c.raw("prefillbench").is_object()) c.fail("'prefillbench' is not an object");
  const Keys own(c.raw("prefillbench"), str(file, ": prefillbench"));
  if (own.text("weights", "") != "random") own.fail("'weights' must be \"random\"");
  const double seed = own.number("seed", 1);
  if (!(seed >= 0 && seed < 1e15)) own.fail("'seed' must be 0 or more");
  return int64_t(seed);
}

}  // namespace

int64_t ModelConfig::context_length() const {
  double n = double(max_positions);
  if (rope.type == "linear" || rope.type == "dynamic") n *= rope.factor;
  if (rope.type == "yarn") n = std::max(n, double(rope.original_max) * rope.factor);
  const auto length = int64_t(n);
  return sliding_window > 0 ? std::min(length, sliding_window) : length;
}

const char* ModelConfig::context_limit() const {
  return sliding_window > 0 && context_length() == sliding_window ? "sliding_window"
                                                                  : "max_position_embeddings";
}

ModelConfig read_model_config(const std::string& folder) {
  if (!std::filesystem::is_directory(folder))
    throw InputError(
        str(folder, ": no such folder; expected a Hugging Face model folder (config.json, *.safetensors)"));
  ModelConfig m;
  m.file = folder + "/config.json";
  const json value = read_json_object(m.file);
  const Keys c(value, m.file);
  m.family = read_family(c);
  refuse_unsupported(c);
  m.stored_dtype = c.text("torch_dtype", c.text("dtype", ""));
  m.hidden = c.size("hidden_size"), m.intermediate = c.size("intermediate_size");
  m.layers = c.size("num_hidden_layers"), m.vocab = c.size("vocab_size");
  m.q_heads = c.size("num_attention_heads");
  // the defaults are those of each family's configuration class in transformers
  m.kv_heads = c.size("num_key_value_heads", m.family == "llama"     ? m.q_heads
                                             : m.family == "mistral" ? 8
                                                                     : 32);
  if (m.q_heads % m.kv_heads != 0)
    c.fail("'num_attention_heads' (", m.q_heads, ") is not a multiple of 'num_key_value_heads' (", m.kv_heads,
           ")");
  if (!c.has("head_dim") && m.family != "qwen3" && m.hidden % m.q_heads != 0)
    c.fail("'hidden_size' (", m.hidden, ") is not a multiple of 'num_attention_heads' (", m.q_heads,
           ") and there is no 'head_dim'");
  m.head_dim = c.size("head_dim", m.family == "qwen3" ? 128 : m.hidden / m.q_heads);
  if (m.head_dim % 2 != 0) c.fail("'head_dim' (", m.head_dim, ") is odd; rotary embeddings need pairs");
  m.norm_eps = c.number("rms_norm_eps", 1e-6);
  m.max_positions = c.size("max_position_embeddings");
  m.tied = c.flag("tie_word_embeddings", false);
  const bool bias = (m.family == "llama" || m.family == "qwen3") && c.flag("attention_bias", false);
  m.qkv_bias = bias || m.family == "qwen2";
  m.o_bias = bias;
  m.mlp_bias = m.family == "llama" && c.flag("mlp_bias", false);
  m.qk_norm = m.family == "qwen3";
  m.rope = read_rope(c, m.file, m.max_positions);
  m.sliding_window = read_sliding_window(c, m);
  m.random_seed = read_random_seed(c, m.file);
  m.eos = c.ids("eos_token_id");
  const std::string generation = folder + "/generation_config.json";
  if (std::filesystem::exists(generation)) {
    const json g = read_json_object(generation);
    if (const auto eos = Keys(g, generation).ids("eos_token_id"); !eos.empty()) m.eos = eos;
  }
  return m;
}

std::vector<std::pair<std::string, std::vector<int64_t>>> expected_tensors(const ModelConfig& m) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> out;
  const int64_t q = m.q_heads * m.head_dim, kv = m.kv_heads * m.head_dim;
  const auto linear = [&](const std::string& name, int64_t rows, int64_t cols, bool bias) {
    out.push_back({name + ".weight", {rows, cols}});
    if (bias) out.push_back({name + ".bias", {rows}});
  };
  out.push_back({"model.embed_tokens.weight", {m.vocab, m.hidden}});
  for (int64_t i = 0; i < m.layers; ++i) {
    const std::string at = str("model.layers.", i, ".");
    out.push_back({at + "input_layernorm.weight", {m.hidden}});
    linear(at + "self_attn.q_proj", q, m.hidden, m.qkv_bias);
    linear(at + "self_attn.k_proj", kv, m.hidden, m.qkv_bias);
    linear(at + "self_attn.v_proj", kv, m.hidden, m.qkv_bias);
    if (m.qk_norm) {
      out.push_back({at + "self_attn.q_norm.weight", {m.head_dim}});
      out.push_back({at + "self_attn.k_norm.weight", {m.head_dim}});
    }
    linear(at + "self_attn.o_proj", m.hidden, q, m.o_bias);
    out.push_back({at + "post_attention_layernorm.weight", {m.hidden}});
    linear(at + "mlp.gate_proj", m.intermediate, m.hidden, m.mlp_bias);
    linear(at + "mlp.up_proj", m.intermediate, m.hidden, m.mlp_bias);
    linear(at + "mlp.down_proj", m.hidden, m.intermediate, m.mlp_bias);
  }
  out.push_back({"model.norm.weight", {m.hidden}});
  if (!m.tied) out.push_back({"lm_head.weight", {m.vocab, m.hidden}});
  return out;
}

void refuse_unused_tensors(const ModelConfig& m, const Checkpoint& c) {
  std::set<std::string> used;
  for (const auto& [name, shape] : expected_tensors(m)) used.insert(name);
  for (const auto& name : c.names()) {
    const bool harmless = name.ends_with(".rotary_emb.inv_freq") || (m.tied && name == "lm_head.weight");
    if (!used.count(name) && !harmless)
      throw InputError(str(c.file_of(name), ": tensor '", name, "' is not part of a ", m.family,
                           " model with ", m.layers, " layers as ", m.file, " describes it"));
  }
}

}  // namespace prefill
