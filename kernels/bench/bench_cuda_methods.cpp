// Whole operators on a GPU: every method's plan and attention on one layer of synthetic Q, K, V, by length,
// beside dense attention by the own kernel and by LibTorch. One JSON line per (method, length); times in ms.
// Before a method is timed its plan for a short prompt is computed here and by cpu-ref; one that differs is
// not timed.
//
//   bench_cuda_methods [SHORTEST LONGEST [LABEL | --methods LIST.json]]
// tokens, default 4096 131072; LABEL: to run alone, beside dense.
//
//   bench_cuda_methods --input QKV.safetensors... [--methods LIST.json]
// times the methods on somebody's Q, K, V (one layer each, as `prefillbench capture` writes them) and adds
// nmse_dense, the normalised mean squared error of each output from LibTorch's dense attention. LIST.json:
// what to run instead of the built-in list, [{"label", "method", "params", "backend" (default cuda)}, ...].
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/engine.h"
#include "core/model/rope.h"
#include "core/qkv_file.h"

namespace prefill {
namespace {
using nlohmann::json;

constexpr int kQueryHeads = 32, kKeyHeads = 8, kDim = 128;
constexpr int kVerifiedQueryHeads = 8, kVerifiedKeyHeads = 2;  ///< cpu-ref is one thread's double sums

/// What attention of a trained model looks like, roughly: a sink, keys that all queries of a head look for, a
/// band of near keys (one direction shared by queries and keys, rotated by position), noise. Strengths differ
/// by head, so that some heads are sparse and some are not.
Qkv synthetic(int64_t n, int64_t query_heads = kQueryHeads, int64_t key_heads = kKeyHeads) {
  at::manual_seed(7);
  const auto f32 = at::TensorOptions().device(at::kCUDA).dtype(at::kFloat);
  const int64_t group = query_heads / key_heads;
  RopeConfig rope;
  rope.theta = 500000;
  RopeTable table(rope, kDim, n, at::Device(at::kCUDA, 0));
  const auto [cos, sin] = table.rows(0, n);
  const at::Tensor near = at::randn({1, key_heads, kDim}, f32), sought = at::randn({1, key_heads, kDim}, f32);
  const at::Tensor pull = at::linspace(0.5, 1.6, key_heads, f32).view({1, key_heads, 1});
  at::Tensor k = at::randn({n, key_heads, kDim}, f32) + near * pull;
  at::Tensor q = at::randn({n, query_heads, kDim}, f32) + (near * pull).repeat_interleave(group, 1);
  apply_rope(q, cos, sin);
  apply_rope(k, cos, sin);
  const at::Tensor marked = (at::rand({n, key_heads, 1}, f32) < 0.0005).to(at::kFloat);
  k.add_(sought * marked * 1.6);
  k.narrow(0, 0, 4).add_(sought * 2);
  q.add_(sought.repeat_interleave(group, 1) *
         at::linspace(0.3, 0.9, query_heads, f32).view({1, query_heads, 1}));
  auto give = [](const at::Tensor& x) { return x.to(at::kBFloat16).transpose(0, 1); };
  return {give(q), give(k), give(at::randn({n, key_heads, kDim}, f32)), 1 / std::sqrt(double(kDim))};
}

struct Entry {
  std::string label, backend, method;
  json params;
  int64_t longest = 1 << 30;
};

/// The list of LIST.json. Throws InputError when the file is no such list.
std::vector<Entry> read_entries(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw InputError(str(path, ": can not be read"));
  std::vector<Entry> list;
  try {
    for (const json& e : json::parse(in))
      list.push_back(
          {e.at("label"), e.value("backend", "cuda"), e.at("method"), e.value("params", json::object())});
  } catch (const json::exception& error) {
    throw InputError(str(path, ": expected a list of {label, method, params, backend}: ", error.what()));
  }
  return list;
}

std::vector<Entry> entries() {
  return {{"dense own", "cuda", "dense", json::object()},
          {"dense libtorch", "torch-sdpa-cuda", "dense", json::object()},
          {"streaming 1024+8192", "cuda", "streaming", {{"sink", 1024}, {"local", 8192}}},
          {"trishape", "cuda", "trishape", json::object()},
          {"minference 1000+6096", "cuda", "minference", {{"vertical", 1000}, {"slash", 6096}}},
          {"minference 1000+1024", "cuda", "minference", {{"vertical", 1000}, {"slash", 1024}}},
          {"flexprefill 0.9", "cuda", "flexprefill", {{"gamma", 0.9}}},
          {"flexprefill 0.95", "cuda", "flexprefill", {{"gamma", 0.95}}},
          {"shareprefill", "cuda", "shareprefill", json::object()},
          {"anchor 12", "cuda", "anchor", {{"theta", 12}}},
          {"xattention 16", "cuda", "xattention", {{"stride", 16}, {"threshold", 0.9}}},
          {"xattention 8", "cuda", "xattention", {{"stride", 8}, {"threshold", 0.9}}},
          {"flashprefill 0.12", "cuda", "flashprefill", {{"alpha", 0.12}}},
          {"flashprefill2", "cuda", "flashprefill2", {{"mean_correction", false}}},
          {"flashprefill2 corrected", "cuda", "flashprefill2", json::object()},
          {"sparge 0.5", "cuda", "sparge", json::object()},
          {"prism", "cuda", "prism", json::object()},
          {"unisparse", "cuda", "unisparse", json::object()},
          {"block_topk 64", "cuda", "block_topk", {{"k", 64}, {"block", 128}, {"estimator", "mean"}}},
          {"pbs", "cuda", "pbs", json::object(), 65536},
          {"random 0.1", "cuda", "random", {{"density", 0.1}, {"tile", 128}}}};
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

/// Normalised mean squared difference of the operator's result from cpu-ref's for the same plan, 1,000
/// tokens of a quarter of the heads, so that a run's first seconds are not cpu-ref's.
double difference(const Entry& e) {
  const Qkv a = synthetic(1000, kVerifiedQueryHeads, kVerifiedKeyHeads),
            host{a.q.cpu(), a.k.cpu(), a.v.cpu(), a.scale};
  const auto backend = backends().at(e.backend).make(), reference = backends().at("cpu-ref").make();
  const auto method = make_method(e.method, e.params,
                                  {{"synthetic", 1, kVerifiedQueryHeads, kVerifiedKeyHeads, kDim, 500000.}});
  const auto clock = backend->make_clock();
  const auto state = method->begin_prompt(a.seq_len());
  const AttentionPlan plan = method->plan({a, 0, a.seq_len(), *backend, *clock}, *state);
  const at::Tensor got = backend->attend(a, plan).out.cpu().to(at::kDouble);
  const at::Tensor want = reference->attend(host, on_cpu(plan)).out.to(at::kDouble);
  return ((got - want).square().sum() / want.square().sum()).item<double>();
}

/// Normalised mean squared error of `got` from `want`, [H,N,D] each; summed in float64, a head at a time.
double nmse(const at::Tensor& got, const at::Tensor& want) {
  at::Tensor wrong = at::zeros({}, want.options().dtype(at::kDouble)), all = wrong.clone();
  for (int64_t h = 0; h < want.size(0); ++h) {
    const at::Tensor w = want[h].to(at::kFloat);
    wrong += (got[h].to(at::kFloat) - w).square().sum(at::kDouble);
    all += w.square().sum(at::kDouble);
  }
  return (wrong / all).item<double>();
}

/// `dense`: the exact output to compare with, if defined.
json measure(const Entry& e, const Qkv& a, const ModelShape& model, const at::Tensor& dense = {}) {
  const auto backend = backends().at(e.backend).make();
  const auto method = make_method(e.method, e.params, {model});
  const auto clock = backend->make_clock();
  const int repeats = a.seq_len() > 65536 ? 5 : 9;
  std::vector<double> total;
  std::vector<std::vector<double>> stages(kStages);
  json facts;
  double density = 0, from_dense = 0;
  for (int i = -2; i < repeats; ++i) {
    AttentionEngine engine(*method, *backend, *clock, a.seq_len());
    clock->reset();
    backend->synchronize();
    if (i == -1) backend->reset_peak();
    const auto begin = std::chrono::steady_clock::now();
    const at::Tensor out = engine.prefill(0, a);
    backend->synchronize();
    if (i == -2 && dense.defined()) from_dense = nmse(out, dense);
    if (i < 0) continue;
    total.push_back(1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    const auto s = clock->seconds();
    for (int k = 0; k < kStages; ++k) stages[size_t(k)].push_back(1e3 * s[size_t(k)]);
    density = engine.mean_density();
    facts = engine.facts();
  }
  json out{{"label", e.label},
           {"method", e.method},
           {"params", e.params},
           {"n", a.seq_len()},
           {"density", density}};
  out["ms"] = median(total);
  out["ms_min"] = *std::min_element(total.begin(), total.end());
  out["ms_max"] = *std::max_element(total.begin(), total.end());
  for (int k = 0; k < kStages; ++k) out["stages_ms"][stage_name(Stage(k))] = median(stages[size_t(k)]);
  out["selection_share"] = 1 - out["stages_ms"]["attend"].get<double>() / out["ms"].get<double>();
  out["peak_bytes"] = backend->peak_bytes();
  if (!facts.empty()) out["facts"] = facts;
  if (dense.defined()) out["nmse_dense"] = from_dense;
  return out;
}

/// measure() of every method that agrees with cpu-ref on a short prompt; one JSON line each. `input`: the
/// file, or "".
void run(const std::string& input, const std::vector<Entry>& list,
         const std::map<std::string, double>& differences, const Qkv& a, const ModelShape& model,
         const at::Tensor& dense = {}) {
  for (const Entry& e : list) {
    if (a.seq_len() > e.longest) continue;
    try {
      const auto found = differences.find(e.label);
      if (found == differences.end() || !(found->second < 3e-5))
        throw std::runtime_error(found == differences.end() ? "could not be verified"
                                                            : str("differs from cpu-ref: ", found->second));
      json line = measure(e, a, model, dense);
      line["nmse"] = found->second;
      if (!input.empty()) line["input"] = input;
      std::cout << line.dump() << std::endl;
    } catch (const std::exception& error) {
      const std::string why = error.what();
      std::cout << json{{"label", e.label},
                        {"n", a.seq_len()},
                        {"input", input},
                        {"error", why.substr(0, 300)}}
                       .dump()
                << std::endl;
    }
  }
}

std::map<std::string, double> verify(const std::vector<Entry>& list) {
  std::map<std::string, double> differences;
  for (const Entry& e : list) try {
      differences[e.label] = difference(e);
    } catch (const std::exception& error) {
      std::cerr << e.label << ": " << error.what() << "\n";
    }
  return differences;
}

/// The file's layer with the strides of a projection, [N,H,D], as a model hands it over.
Qkv as_projected(const QkvFile& file, int layer) {
  const Qkv a = file.layer(layer, at::Device(at::kCUDA, 0));
  auto give = [](const at::Tensor& x) { return x.transpose(0, 1).contiguous().transpose(0, 1); };
  return {give(a.q), give(a.k), give(a.v), a.scale};
}

void run_file(const std::string& path, const std::vector<Entry>& list,
              const std::map<std::string, double>& differences) {
  const QkvFile file(path);
  const int layer = file.pick(-1);
  ModelShape model = file.model(layer);
  if (model.layers == 0) model.layers = 1;
  const Qkv a = as_projected(file, layer);
  const auto exact = backends().at("torch-sdpa-cuda").make();
  const auto clock = exact->make_clock();
  const auto method = make_method("dense", json::object(), {model});
  AttentionEngine engine(*method, *exact, *clock, a.seq_len());
  run(path, list, differences, a, model, engine.prefill(0, a));
}

/// The command line after --input.
int run_files(const std::vector<std::string>& words) {
  std::vector<std::string> files;
  std::vector<Entry> list = entries();
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--methods" && i + 1 < words.size())
      list = read_entries(words[++i]);
    else
      files.push_back(words[i]);
  }
  if (files.empty())
    throw InputError("usage: bench_cuda_methods --input QKV.safetensors... [--methods LIST.json]");
  const auto differences = verify(list);
  for (const std::string& file : files) run_file(file, list, differences);
  return 0;
}

}  // namespace
}  // namespace prefill

int main(int argc, char** argv) {
  using namespace prefill;
  if (const Support s = backends().at("cuda").available(); !s) {
    std::cerr << "skipped: " << s.why << "\n";
    return 0;
  }
  try {
    if (argc > 1 && std::string(argv[1]) == "--input") return run_files({argv + 2, argv + argc});
  } catch (const InputError& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
  const int64_t shortest = argc > 2 ? std::atoll(argv[1]) : 4096,
                longest = argc > 2 ? std::atoll(argv[2]) : 131072;
  std::vector<Entry> list = entries();
  if (argc > 4 && std::string(argv[3]) == "--methods") try {
      list = read_entries(argv[4]);
    } catch (const InputError& error) {
      std::cerr << error.what() << "\n";
      return 2;
    }
  else if (argc > 3)
    std::erase_if(list, [&](const Entry& e) { return e.label != argv[3] && e.method != "dense"; });
  const auto differences = verify(list);
  for (int64_t n = shortest; n > 0 && n <= longest; n *= 2)
    run("", list, differences, synthetic(n), {"synthetic", 1, kQueryHeads, kKeyHeads, kDim, 500000.});
  return 0;
}
