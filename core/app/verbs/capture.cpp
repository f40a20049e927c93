// capture: q, k and v of chosen layers on a real prompt, so that methods can be studied on files.
#include <ATen/ATen.h>

#include <iostream>
#include <memory>

#include "core/app/verb.h"
#include "core/engine.h"
#include "core/model/capture.h"
#include "core/model/chat_template.h"
#include "core/model/model.h"
#include "core/model/model_tokenizer.h"
#include "core/model/safetensors.h"
#include "core/run/experiment.h"
#include "core/run/session.h"

namespace prefill {
namespace {

struct CaptureOptions {
  std::string model, prompt_file, out, dtype = "auto", backend = "auto";
  std::vector<int> layers;
  bool chat = false;
  int64_t max_tokens = 0;
};

int run_capture(const CaptureOptions& o) {
  const std::string folder = resolve_model(o.model, ".");
  const auto tokenizer = load_model_tokenizer(folder);
  const std::string text = read_file(o.prompt_file);
  // a rendered template already starts with the BOS token
  std::vector<int32_t> ids =
      o.chat ? tokenizer->encode(apply_chat_template(folder, "", text), false) : tokenizer->encode(text);
  if (ids.empty()) throw InputError(str(o.prompt_file, ": holds no tokens"));
  if (o.max_tokens > 0 && int64_t(ids.size()) > o.max_tokens) ids.resize(size_t(o.max_tokens));
  const auto backend = open_backend(o.backend);
  ModelOptions options;
  options.dtype = o.dtype;
  options.device = backend->device();
  const auto model = load_model(folder, options);
  for (int layer : o.layers)
    if (layer < 0 || layer >= model->shape().layers)
      throw InputError(str("--layers: ", model->shape().id, " has layers 0 to ", model->shape().layers - 1,
                           ", not ", layer));
  const auto method = make_method("dense", nlohmann::json::object(), MethodEnv{model->shape()});
  const auto clock = backend->make_clock();
  AttentionEngine engine(*method, *backend, *clock, int64_t(ids.size()));
  CaptureHook hook(engine, {o.layers.begin(), o.layers.end()});
  model->prefill(ids, hook);
  std::vector<std::pair<std::string, at::Tensor>> out;
  for (const auto& [layer, x] : hook.captured)
    for (const auto& [name, tensor] : {std::pair("q", x.q), std::pair("k", x.k), std::pair("v", x.v)})
      out.emplace_back(str("layer.", layer, ".", name), tensor);
  write_safetensors(o.out, out,
                    {{"model", model->shape().id},
                     {"model_fingerprint", model->shape().fingerprint},
                     {"dtype", model->dtype()},
                     {"model_layers", std::to_string(model->shape().layers)},
                     {"tokens", std::to_string(ids.size())},
                     {"scale", number_text(hook.captured.begin()->second.scale)},
                     {"rope_theta", number_text(model->shape().rope_theta)}});
  std::cout << o.out << ": " << ids.size() << " tokens, " << hook.captured.size() << " layers\n";
  return exit_ok;
}

const RegisterVerb capture_verb(
    {.name = "capture",
     .doc = "q, k, v (after RoPE) of chosen layers on a prompt, as a safetensors file",
     .file = __FILE__,
     .order = 62,
     .setup = [](CLI::App& app) -> std::function<int()> {
       auto o = std::make_shared<CaptureOptions>();
       app.add_option("--model", o->model, "Hugging Face folder, or the name of a fetched model")->required();
       app.add_option("--prompt-file", o->prompt_file, "text of the prompt, taken byte for byte")->required();
       app.add_option("--layers", o->layers, "layers to record, such as 0,7")->delimiter(',')->required();
       app.add_option("--out", o->out,
                      "file to write: tensors `layer.N.q` [Hq,S,D], `layer.N.k` and `layer.N.v` [Hkv,S,D]")
           ->required();
       app.add_option("--dtype", o->dtype, "auto, float32, bfloat16 or float16")->capture_default_str();
       app.add_option("--backend", o->backend, "backend; see 'prefillbench list backends'")
           ->capture_default_str();
       app.add_option("--max-tokens", o->max_tokens, "cut the prompt after this many tokens");
       app.add_flag("--chat", o->chat, "put the text into the model's chat template, as one user message");
       return [o] { return run_capture(*o); };
     }});

}  // namespace
}  // namespace prefill
