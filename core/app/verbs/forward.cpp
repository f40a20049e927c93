// forward: logits of one prompt, for comparing this program's models and methods with anything else.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/app/assignments.h"
#include "core/app/verb.h"
#include "core/engine.h"
#include "core/model/model.h"
#include "core/model/safetensors.h"
#include "core/run/experiment.h"
#include "core/run/ranks.h"
#include "core/run/session.h"

namespace prefill {
namespace {

struct ForwardOptions {
  std::string model, ids, out, dtype = "auto", method = "dense", backend = "auto";
  std::vector<std::string> set;
  bool last = false;
  int greedy = 0, ranks = 1;
};

std::vector<int32_t> read_ids(const std::string& path) {
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& e) {
    throw InputError(str(path, ": not valid JSON: ", e.what()));
  }
  if (!value.is_array()) throw InputError(str(path, ": expected a JSON list of token ids"));
  std::vector<int32_t> ids;
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_number_integer() || value[i].get<double>() < 0 || value[i].get<double>() > INT32_MAX)
      throw InputError(str(path, ": entry ", i, " is ", value[i].dump(), ", expected a token id"));
    ids.push_back(value[i].get<int32_t>());
  }
  if (ids.empty()) throw InputError(str(path, ": the list is empty; at least one token id is needed"));
  return ids;
}

int run_forward(const ForwardOptions& o) {
  const std::vector<int32_t> ids = read_ids(o.ids);
  const auto backend = open_backend(o.backend);
  if (o.ranks > 1) at::set_num_threads(std::max(1, at::get_num_threads() / o.ranks));
  const LoadedModel loaded =
      load_on_ranks(resolve_model(o.model, "."), *backend, o.dtype, o.ranks, at::get_num_threads());
  const auto& model = loaded.model;
  const auto method = make_method(o.method, read_assignments(o.set), model->method_env());
  const auto clock = backend->make_clock();
  AttentionEngine engine(*method, *backend, *clock, int64_t(ids.size()));
  at::Tensor logits = model->prefill(ids, engine, o.last || o.greedy > 0 ? Logits::last : Logits::all);
  std::vector<std::pair<std::string, at::Tensor>> out = {{"logits", logits}};
  if (o.greedy > 0) {
    std::vector<int32_t> tokens;
    while (int(tokens.size()) < o.greedy) {
      tokens.push_back(int32_t(logits.argmax().item<int64_t>()));
      if (int(tokens.size()) < o.greedy) logits = model->decode(tokens.back());
    }
    out.emplace_back("greedy", at::tensor(tokens, at::kInt));
  }
  PromptReport report = report_of(engine, *clock, *backend, /*whole=*/true);
  if (loaded.ranks) report = merged(loaded.ranks->reports(std::move(report), /*whole=*/true));
  write_safetensors(o.out, out,
                    {{"model", model->shape().id},
                     {"dtype", model->dtype()},
                     {"method", o.method},
                     {"backend", backend->name()},
                     {"density", number_text(report.density())}});
  std::cout << o.out << "\n";
  return exit_ok;
}

const RegisterVerb forward_verb(
    {.name = "forward",
     .doc = "Logits of one prompt under a method, as a safetensors file",
     .file = __FILE__,
     .order = 60,
     .setup = [](CLI::App& app) -> std::function<int()> {
       auto o = std::make_shared<ForwardOptions>();
       app.add_option("--model", o->model, "Hugging Face folder, or the name of a fetched model")->required();
       app.add_option("--ids", o->ids, "JSON list of token ids; nothing is added to it")->required();
       app.add_option("--out", o->out, "file to write: tensor `logits` [n, vocab] float32")->required();
       app.add_option("--dtype", o->dtype, "auto, float32, bfloat16 or float16")->capture_default_str();
       app.add_option("--method", o->method, "attention method")->capture_default_str();
       app.add_option("--set", o->set, "parameter of the method, name=value; may be repeated");
       app.add_option("--backend", o->backend, "backend; see 'prefillbench list backends'")
           ->capture_default_str();
       app.add_flag("--last", o->last, "logits of the last token only [1, vocab]");
       app.add_option("--greedy", o->greedy,
                      "also decode this many tokens greedily: tensor `greedy` (implies --last)")
           ->check(CLI::PositiveNumber);
       app.add_option("--tensor-parallel", o->ranks,
                      "processes, each on a GPU of its own, that share the model's heads")
           ->capture_default_str()
           ->check(CLI::Range(1, 64));
       return [o] { return run_forward(*o); };
     }});

}  // namespace
}  // namespace prefill
