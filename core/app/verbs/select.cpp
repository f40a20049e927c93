// select: a method's choice on captured tensors, as a plan file, with its density and what it keeps of the
// attention.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <map>
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
#include "core/run/session.h"

namespace prefill {
namespace {

struct SelectOptions {
  std::string method, qkv, out, backend = "auto", model;
  std::vector<std::string> set;
  int layer = -1, model_layers = 0, time = 0;
  double rope_theta = 0;
  bool history = false, json = false;
};

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
}

/// The plan of layer `target`; with history, after the file's earlier layers went through the method.
AttentionPlan plan_of_layer(const SelectOptions& o, const QkvFile& file, const Method& method,
                            const KernelBackend& backend, int target, StageClock& clock) {
  const int64_t n = file.layer(target).seq_len();
  const auto state = method.begin_prompt(n);
  for (int layer : file.layers()) {
    if (layer > target || (layer < target && !o.history)) continue;
    const Qkv qkv = file.layer(layer, backend.device());
    if (qkv.seq_len() != n)
      throw InputError(
          str(o.qkv, ": layer ", layer, " has ", qkv.seq_len(), " tokens, layer ", target, " has ", n));
    const LayerContext context{qkv, layer, n, backend, clock};
    if (layer == target) clock.reset();  // earlier layers are not what is timed
    AttentionPlan plan = method.plan(context, *state);
    if (layer == target) return plan;
    method.observe(context, backend.attend(qkv, plan), *state);
  }
  throw std::logic_error("the target layer is one of the file's");
}

/// Selection against dense attention of the same layer, by turns in this process: medians of `rounds` rounds.
nlohmann::ordered_json time_selection(const SelectOptions& o, const QkvFile& file, const Method& method,
                                      const KernelBackend& backend, const Qkv& qkv, int layer) {
  const auto clock = backend.make_clock();
  std::map<std::string, std::vector<double>> seconds;
  for (int round = 0; round <= o.time; ++round) {  // round 0 warms up
    clock->reset();
    {
      StageScope stage(*clock, Stage::attend, layer);
      backend.attend(qkv, AttentionPlan::uniform(qkv.q_heads(), {Route::dense, 0}));
    }
    backend.synchronize();
    const double dense = clock->seconds()[size_t(Stage::attend)];
    const AttentionPlan plan = plan_of_layer(o, file, method, backend, layer, *clock);
    backend.synchronize();
    const auto spent = clock->seconds();
    clock->reset();
    {
      StageScope stage(*clock, Stage::attend, layer);
      backend.attend(qkv, plan);
    }
    backend.synchronize();
    const double attend = spent[size_t(Stage::attend)] + clock->seconds()[size_t(Stage::attend)];
    if (round == 0) continue;
    double selection = 0;
    for (Stage stage : {Stage::estimate, Stage::select, Stage::index}) {
      seconds[stage_name(stage)].push_back(spent[size_t(stage)]);
      selection += spent[size_t(stage)];
    }
    seconds["selection"].push_back(selection);
    seconds["attend"].push_back(attend);
    seconds["dense"].push_back(dense);
    seconds["selection_over_dense"].push_back(selection / dense);
  }
  nlohmann::ordered_json out;
  for (auto& [name, values] : seconds) {
    std::sort(values.begin(), values.end());
    out[name] = {{"median", values[values.size() / 2]}, {"least", values.front()}, {"most", values.back()}};
  }
  out["rounds"] = o.time;
  out["kernel"] = backend.kernel_name(qkv, AttentionPlan::uniform(qkv.q_heads(), {Route::dense, 0}));
  return out;
}

/// What the capture says of its model, what it does not say from the flags.
ModelShape model_of(const SelectOptions& o, const QkvFile& file, int layer) {
  ModelShape shape = file.model(layer);
  auto take = [&](const char* flag, auto& told, const auto& given, const auto& unknown) {
    if (given == unknown) return;
    if (told != unknown && told != given)
      throw InputError(str(o.qkv, ": its metadata says ", told, ", ", flag, " says ", given));
    told = given;
  };
  take("--model", shape.id, o.model, std::string());
  take("--model-layers", shape.layers, o.model_layers, 0);
  take("--rope-theta", shape.rope_theta, o.rope_theta, 0.0);
  if (shape.id.empty()) shape.id = "the captured model";
  if (shape.layers == 0) shape.layers = file.layers().back() + 1;
  if (file.layers().back() >= shape.layers)
    throw InputError(str(o.qkv, ": it holds layer ", file.layers().back(), ", but the model has ",
                         shape.layers, " layers"));
  return shape;
}

int run_select(const SelectOptions& o) {
  const MethodInfo& info = methods().at(o.method);
  const ParamsHandle params = read_settings(info.read, info.name, o.set);
  const QkvFile file(o.qkv);
  const int layer = file.pick(o.layer);
  const auto backend = open_backend(o.backend);
  const Qkv qkv = file.layer(layer, backend->device());
  const auto method = info.make(params, MethodEnv{model_of(o, file, layer)});

  const auto clock = backend->make_clock();
  const AttentionPlan plan = plan_of_layer(o, file, *method, *backend, layer, *clock);
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

  nlohmann::ordered_json times;
  if (o.time > 0) times = time_selection(o, file, *method, *backend, qkv, layer);

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
    if (o.time > 0) report["seconds"] = times;
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
  if (o.time > 0)
    std::cout << "selection " << times["selection"]["median"].get<double>() << " s, dense attention "
              << times["dense"]["median"].get<double>() << " s, ratio "
              << times["selection_over_dense"]["median"].get<double>() << " (medians of " << o.time << ")\n";
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
       app.add_option("--backend", o->backend,
                      "backend for estimates and recall; see 'prefillbench list backends'")
           ->capture_default_str();
       app.add_option("--model", o->model,
                      "name of the model, where the file does not say it (capture does)");
       app.add_option(
              "--model-layers", o->model_layers,
              "layers of the model, where the file does not say it; default: last layer in the file + 1")
           ->check(CLI::PositiveNumber);
       app.add_option("--rope-theta", o->rope_theta,
                      "base of the model's rotary embedding, where the file does not say it")
           ->check(CLI::PositiveNumber);
       app.add_flag("--history", o->history,
                    "run the file's earlier layers first, for methods that remember (shareprefill)");
       app.add_option("--time", o->time,
                      "also time selection and dense attention by turns, so many rounds; prints medians")
           ->check(CLI::NonNegativeNumber);
       app.add_flag("--json", o->json, "print JSON, with density and recall per head");
       return [o] { return run_select(*o); };
     }});

}  // namespace
}  // namespace prefill
