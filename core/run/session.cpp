#include "core/run/session.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <filesystem>

#include "core/model/model_tokenizer.h"

namespace prefill {
namespace fs = std::filesystem;
using nlohmann::json;

std::unique_ptr<KernelBackend> open_backend(const std::string& name) {
  if (name != "auto") {
    const BackendInfo* info = backends().find(name);
    if (!info) throw InputError(no_such_backend(name));
    if (const Support s = info->available(); !s) throw Unsupported(str("backend ", name, ": ", s.why));
    return info->make();
  }
  for (const char* candidate : {"cuda", "cpu", "cpu-ref"})
    if (const BackendInfo* info = backends().find(candidate); info && info->available()) return info->make();
  throw Unsupported("no backend is available");
}

namespace {

/// Said once, however many points of a sweep name the file.
void complain(Diagnostics& bad, const Experiment& e, Place at, const std::string& text) {
  const Diagnostic said{e.file, at.line, at.column, text};
  if (std::none_of(bad.begin(), bad.end(), [&](const auto& d) { return d.print() == said.print(); }))
    bad.push_back(said);
}

void refuse(const Diagnostics& bad) {
  std::string all;
  for (const Diagnostic& d : bad) all += (all.empty() ? "" : "\n") + d.print();
  if (!bad.empty()) throw InputError(all);
}

/// The tasks of the experiment's workloads, one each unless something is bad. A workload whose data are not
/// here is taken out of the experiment and noted among its pruned points.
std::vector<std::unique_ptr<Task>> make_tasks(Experiment& e, const Tokenizer& tokenizer, Diagnostics& bad) {
  std::vector<std::unique_ptr<Task>> made;
  for (auto it = e.workloads.begin(); it != e.workloads.end();) {
    const WorkloadSpec& w = *it;
    try {
      made.push_back(
          w.task->make(w.params, TaskRequest{w.tokens, w.count, uint64_t(w.seed), w.profile, &tokenizer}));
      if (w.prompt_template == "chat" && made.back()->reading() != Reading::answer)
        throw InputError(
            str("task ", w.task->name, " reads plain text and asks nothing: remove 'template: chat'"));
    } catch (const Unsupported& missing) {
      e.pruned.push_back({w.label(), missing.what()});
      it = e.workloads.erase(it);
      continue;
    } catch (const InputError& wrong) {
      complain(bad, e, w.source, wrong.what());
    }
    ++it;
  }
  return made;
}

void check_methods(const Experiment& e, const ModelShape& model, Diagnostics& bad) {
  for (const MethodPoint& p : e.points) {
    try {
      p.method->make(p.params, {model});
    } catch (const std::runtime_error& wrong) {
      complain(bad, e, p.source, wrong.what());
    }
  }
}

}  // namespace

Diagnostics check_files(Experiment& e, const std::string& model_folder) {
  Diagnostics bad;
  try {
    make_tasks(e, *load_model_tokenizer(model_folder), bad);
    check_methods(e, read_model_shape(model_folder), bad);
  } catch (const InputError& wrong) {
    complain(bad, e, e.model_place, wrong.what());
  }
  return bad;
}

Session open_session(Experiment& e, bool alone) {
  Session s;
  if (e.threads > 0) at::set_num_threads(e.threads);
  if (e.tensor_parallel > 1) at::set_num_threads(std::max(1, at::get_num_threads() / e.tensor_parallel));
  s.threads = at::get_num_threads();
  s.backend = open_backend(e.backend);
  s.model_folder = resolve_model(e.model, fs::path(e.file).parent_path().string());
  s.tokenizer = load_model_tokenizer(s.model_folder);
  // Files before weights: a missing one is said in a moment, not after a minute of loading.
  Diagnostics bad;
  auto made = make_tasks(e, *s.tokenizer, bad);
  check_methods(e, read_model_shape(s.model_folder), bad);
  refuse(bad);
  if (made.empty()) throw Unsupported(e.pruned.back().reason);
  for (const auto& task : made) s.workload_data.push_back(task->provenance());
  LoadedModel loaded =
      load_on_ranks(s.model_folder, *s.backend, e.dtype, alone ? 1 : e.tensor_parallel, s.threads);
  s.ranks = std::move(loaded.ranks);
  s.model = std::move(loaded.model);
  const ModelShape shape = s.model->shape();
  s.model_identity = {{"name", shape.id},           {"fingerprint", shape.fingerprint},
                      {"layers", shape.layers},     {"q_heads", shape.q_heads},
                      {"kv_heads", shape.kv_heads}, {"head_dim", shape.head_dim}};
  if (s.model->random_weights()) s.model_identity["weights"] = "random";
  for (size_t i = 0; i < e.workloads.size(); ++i) {
    const WorkloadSpec& w = e.workloads[i];
    if (made[i]->reading() == Reading::answer)
      s.workloads.push_back(make_prompt_workload(*s.model, *s.tokenizer, std::move(made[i]),
                                                 w.prompt_template == "chat", s.model_folder, w.count));
    else
      s.workloads.push_back(
          make_teacher_forced_workload(*s.model, *s.tokenizer, std::move(made[i]), *s.backend, w.count));
  }
  for (const MethodPoint& p : e.points) s.methods.push_back(p.method->make(p.params, s.model->method_env()));
  return s;
}

json identity_of(const Experiment& e, const Session& s, const WorkloadSpec& w, const MethodPoint& p,
                 int max_new_tokens) {
  json out{
      {"schema", 1},
      {"method", {{"name", p.method->name}, {"version", p.method->version}, {"params", p.params_identity}}},
      {"model", s.model_identity},
      {"workload",
       {{"task", w.task->name},
        {"version", w.task->version},
        {"params", w.params_identity},
        {"tokens", w.tokens},
        {"count", w.count},
        {"seed", w.seed},
        {"profile", w.profile},
        {"template", w.prompt_template},
        {"max_new_tokens", max_new_tokens}}},
      {"backend", s.backend->name()},
      {"dtype", s.model->dtype()},
      {"threads", s.threads}};
  if (e.tensor_parallel > 1) out["tensor_parallel"] = e.tensor_parallel;
  const json& data = s.workload_data[size_t(&w - e.workloads.data())];
  if (!data.is_null()) out["workload"]["data"] = data;
  return out;
}

void verify_backend(const KernelBackend& backend, const ModelShape& shape, const std::string& dtype) {
  const BackendInfo* oracle = backends().find("cpu-ref");
  if (!oracle || backend.name() == "cpu-ref") return;
  const auto reference = oracle->make();
  const auto type = dtype == "bfloat16" ? at::kBFloat16 : dtype == "float16" ? at::kHalf : at::kFloat;
  const int64_t n = 211;  // several tiles and a tail
  const int tile = 64;
  const int64_t rows = (n + tile - 1) / tile;
  at::Generator random = at::detail::createCPUGenerator(20240711);
  auto draw = [&](int heads) { return at::randn({heads, n, shape.head_dim}, random, at::kFloat).to(type); };
  const Qkv host{draw(shape.q_heads), draw(shape.kv_heads), draw(shape.kv_heads),
                 1 / std::sqrt(double(shape.head_dim))};
  const Qkv device{host.q.to(backend.device()), host.k.to(backend.device()), host.v.to(backend.device()),
                   host.scale};
  at::Tensor mask = at::rand({1, rows, rows}, random, at::kFloat) < 0.4;
  mask = (mask | at::eye(rows, at::kBool)).tril();
  AttentionPlan sparse = AttentionPlan::uniform(shape.q_heads, {Route::tiles, 0});
  sparse.tiles = tiles_from_mask(mask, tile, tile);
  AttentionPlan there = sparse;
  there.tiles.tile_ptr = there.tiles.tile_ptr.to(backend.device());
  there.tiles.tile_idx = there.tiles.tile_idx.to(backend.device());
  const AttentionPlan dense = AttentionPlan::uniform(shape.q_heads, {Route::dense, 0});
  struct Case {
    const char* what;
    const AttentionPlan *on_host, *on_device;
  };
  for (const auto& [what, on_host, on_device] :
       {Case{"dense", &dense, &dense}, Case{"block-sparse", &sparse, &there}}) {
    if (!backend.supports(device, *on_device)) continue;
    const at::Tensor want = reference->attend(host, *on_host).out.to(at::kDouble);
    const at::Tensor got = backend.attend(device, *on_device).out.to(at::kCPU).to(at::kDouble);
    const double error = ((want - got).norm() / want.norm()).item<double>();
    // Rounding of operands and of P: about 2^-9 for bfloat16, 2^-12 for float16, far less for float32.
    const double bound = type == at::kFloat ? 1e-4 : 2e-2;
    if (!(error < bound))
      throw std::runtime_error(str("backend ", backend.name(), " is wrong: ", what,
                                   " attention differs from cpu-ref by ", error, " (relative; bound ", bound,
                                   "); nothing was timed"));
  }
}

}  // namespace prefill
