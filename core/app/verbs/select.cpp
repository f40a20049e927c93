// select: a method's choice on captured tensors, as a plan file, with its density and what it keeps of the
// attention.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/app/set_option.h"
#include "core/app/verb.h"
#include "core/base/text.h"
#include "core/method.h"
#include "core/plan_file.h"
#include "core/qkv_file.h"
#include "core/recall.h"

namespace prefill {
namespace {

struct SelectOptions {
  std::string method, qkv, out, backend = "cpu", model_id = "captured";
  std::vector<std::string> set;
  int layer = -1, model_layers = 0;
  double rope_theta = 0;
  bool history = false, json = false;
};

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
}

/// The plan of layer `target`; with history, after the file's earlier layers went through the method.
AttentionPlan plan_of_layer(const SelectOptions& o, const QkvFile& file, const Method& method,
                            const KernelBackend& backend, int target) {
  const auto clock = make_cpu_clock();
  const int64_t n = file.layer(target).seq_len();
  const auto state = method.begin_prompt(n);
  for (int layer : file.layers()) {
    if (layer > target || (layer < target && !o.history)) continue;
    const Qkv qkv = file.layer(layer);
    if (qkv.seq_len() != n)
      throw InputError(
          str(o.qkv, ": layer ", layer, " has ", qkv.seq_len(), " tokens, layer ", target, " has ", n));
    const LayerContext context{qkv, layer, n, backend, *clock};
    AttentionPlan plan = method.plan(context, *state);
    if (layer == target) return plan;
    method.observe(context, backend.attend(qkv, plan), *state);
  }
  throw std::logic_error("the target layer is one of the file's");
}

int run_select(const SelectOptions& o) {
  const MethodInfo& info = methods().at(o.method);
  const ParamsHandle params = read_settings(info.read, info.name, o.set);
  const QkvFile file(o.qkv);
  const int layer = file.pick(o.layer);
  const Qkv qkv = file.layer(layer);
  const auto backend = backends().at(o.backend).make();

  MethodEnv env;
  env.model.id = o.model_id;
  env.model.layers = std::max(o.model_layers, file.layers().back() + 1);
  env.model.q_heads = qkv.q_heads();
  env.model.kv_heads = qkv.kv_heads();
  env.model.head_dim = qkv.head_dim();
  env.model.rope_theta = o.rope_theta;
  const auto method = info.make(params, env);

  const AttentionPlan plan = plan_of_layer(o, file, *method, *backend, layer);
  const int64_t n = qkv.seq_len();
  const ExpandedPlan written = expand_plan(plan, n);
  check(written.plan, qkv.q_heads(), n);
  const auto dense_share = density(plan, n), file_share = density(written.plan, n),
             recall = mass_recall(*backend, qkv, plan);
  write_plan_file(o.out, written.plan, n,
                  {{"method", info.name},
                   {"method_version", std::to_string(info.version)},
                   {"params", params.canonical.dump()},
                   {"layer", std::to_string(layer)}});
  if (!written.left_out.empty())
    std::cerr << "prefillbench: the file holds tiles and columns only; left out: " << written.left_out
              << "\n";

  if (o.json) {
    nlohmann::ordered_json report = {{"method", info.name},
                                     {"params", params.canonical},
                                     {"layer", layer},
                                     {"tokens", n},
                                     {"density", mean(dense_share)},
                                     {"recall", mean(recall)},
                                     {"density_per_head", dense_share},
                                     {"recall_per_head", recall},
                                     {"density_of_file", mean(file_share)},
                                     {"left_out", written.left_out},
                                     {"out", o.out}};
    std::cout << report.dump() << "\n";
    return exit_ok;
  }
  const auto worst = std::min_element(recall.begin(), recall.end());
  std::cout << std::fixed << std::setprecision(4) << info.name << ", layer " << layer << ", " << n
            << " tokens, " << qkv.q_heads() << " heads\n"
            << "density " << mean(dense_share) << "  recall of attention mass " << mean(recall)
            << " (worst head " << worst - recall.begin() << ": " << *worst << ")\n";
  if (mean(file_share) > mean(dense_share) + 1e-9)
    std::cout << "density of the file " << mean(file_share) << " (windows are written as whole tiles)\n";
  std::cout << "plan written to " << o.out << "\n";
  return exit_ok;
}

const RegisterVerb select_verb(
    {.name = "select",
     .doc = "apply a method to captured Q, K, V and write its plan; prints density and recall",
     .file = __FILE__,
     .order = 62,
     .setup = [](CLI::App& app) -> std::function<int()> {
       const auto o = std::make_shared<SelectOptions>();
       app.add_option("--method", o->method, "method; `list methods` shows them")->required();
       app.add_option("--set", o->set,
                      "parameter of the method, key=value; `describe METHOD` lists them; may be repeated");
       app.add_option("--qkv", o->qkv,
                      "safetensors with layer.N.q [Hq,S,D], layer.N.k and layer.N.v [Hkv,S,D] (see capture)")
           ->required();
       app.add_option("--layer", o->layer, "layer of the file; default: its only one");
       app.add_option("--out", o->out, "plan file to write (safetensors)")->required();
       app.add_option("--backend", o->backend, "backend for estimates and recall")->capture_default_str();
       app.add_option("--model-layers", o->model_layers,
                      "layers of the model, for methods with per-layer rules or artefacts; default: last "
                      "layer in the file + 1");
       app.add_option("--model-id", o->model_id, "name of the model, for messages");
       app.add_option("--rope-theta", o->rope_theta,
                      "base of the model's rotary embedding, for methods that read it");
       app.add_flag("--history", o->history,
                    "run the file's earlier layers first, for methods that remember (shareprefill)");
       app.add_flag("--json", o->json, "print JSON, with density and recall per head");
       return [o] { return run_select(*o); };
     }});

}  // namespace
}  // namespace prefill
