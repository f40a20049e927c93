// Whole operators on a GPU: every method's plan and attention on one layer of synthetic Q, K, V, by length, beside dense
// attention by the own kernel and by LibTorch. One JSON line per (method, length); times in ms. Before a method is timed its
// plan for a short prompt is computed here and by cpu-ref; one that differs is not timed.
//   bench_cuda_methods [SHORTEST LONGEST [LABEL]]     tokens, default 4096 131072; LABEL: to run alone, beside dense
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/engine.h"
#include "core/model/rope.h"

namespace prefill {
namespace {
using nlohmann::json;

constexpr int kQueryHeads = 32, kKeyHeads = 8, kDim = 128;

/// What attention of a trained model looks like, roughly: a sink, keys that all queries of a head look for, a band of
/// near keys (one direction shared by queries and keys, rotated by position), noise. Strengths differ by head, so that
/// some heads are sparse and some are not.
Qkv synthetic(int64_t n) {
  at::manual_seed(7);
  const auto f32 = at::TensorOptions().device(at::kCUDA).dtype(at::kFloat);
  const int64_t group = kQueryHeads / kKeyHeads;
  RopeConfig rope;
  rope.theta = 500000;
  RopeTable table(rope, kDim, n, at::Device(at::kCUDA, 0));
  const auto [cos, sin] = table.rows(0, n);
  const at::Tensor near = at::randn({1, kKeyHeads, kDim}, f32), sought = at::randn({1, kKeyHeads, kDim}, f32);
  const at::Tensor pull = at::linspace(0.5, 1.6, kKeyHeads, f32).view({1, kKeyHeads, 1});
  at::Tensor k = at::randn({n, kKeyHeads, kDim}, f32) + near * pull;
  at::Tensor q = at::randn({n, kQueryHeads, kDim}, f32) + (near * pull).repeat_interleave(group, 1);
  apply_rope(q, cos, sin);
  apply_rope(k, cos, sin);
  const at::Tensor marked = (at::rand({n, kKeyHeads, 1}, f32) < 0.0005).to(at::kFloat);
  k.add_(sought * marked * 1.6);
  k.narrow(0, 0, 4).add_(sought * 2);
  q.add_(sought.repeat_interleave(group, 1) * at::linspace(0.3, 0.9, kQueryHeads, f32).view({1, kQueryHeads, 1}));
  auto give = [](const at::Tensor& x) { return x.to(at::kBFloat16).transpose(0, 1); };
  return {give(q), give(k), give(at::randn({n, kKeyHeads, kDim}, f32)), 1 / std::sqrt(double(kDim))};
}

struct Entry {
  std::string label, backend, method;
  json params;
  int64_t longest = 1 << 30;
};

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

/// Normalised mean squared difference of the operator's result from cpu-ref's for the same plan, 1,000 tokens.
double difference(const Entry& e) {
  const Qkv a = synthetic(1000), host{a.q.cpu(), a.k.cpu(), a.v.cpu(), a.scale};
  const auto backend = backends().at(e.backend).make(), reference = backends().at("cpu-ref").make();
  const auto method = make_method(e.method, e.params, {{"synthetic", 1, kQueryHeads, kKeyHeads, kDim, 500000.}});
  const auto clock = backend->make_clock();
  const auto state = method->begin_prompt(a.seq_len());
  const AttentionPlan plan = method->plan({a, 0, a.seq_len(), *backend, *clock}, *state);
  const at::Tensor got = backend->attend(a, plan).out.cpu().to(at::kDouble);
  const at::Tensor want = reference->attend(host, on_cpu(plan)).out.to(at::kDouble);
  return ((got - want).square().sum() / want.square().sum()).item<double>();
}

json measure(const Entry& e, const Qkv& a) {
  const auto backend = backends().at(e.backend).make();
  const auto method = make_method(e.method, e.params, {{"synthetic", 1, kQueryHeads, kKeyHeads, kDim, 500000.}});
  const auto clock = backend->make_clock();
  const int repeats = a.seq_len() > 65536 ? 5 : 9;
  std::vector<double> total;
  std::vector<std::vector<double>> stages(kStages);
  json facts;
  double density = 0;
  for (int i = -2; i < repeats; ++i) {
    AttentionEngine engine(*method, *backend, *clock, a.seq_len());
    clock->reset();
    backend->synchronize();
    if (i == -1) backend->reset_peak();
    const auto begin = std::chrono::steady_clock::now();
    engine.prefill(0, a);
    backend->synchronize();
    if (i < 0) continue;
    total.push_back(1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    const auto s = clock->seconds();
    for (int k = 0; k < kStages; ++k) stages[size_t(k)].push_back(1e3 * s[size_t(k)]);
    density = engine.mean_density();
    facts = engine.facts();
  }
  json out{{"label", e.label}, {"method", e.method}, {"params", e.params}, {"n", a.seq_len()}, {"density", density}};
  out["ms"] = median(total);
  out["ms_min"] = *std::min_element(total.begin(), total.end());
  out["ms_max"] = *std::max_element(total.begin(), total.end());
  for (int k = 0; k < kStages; ++k) out["stages_ms"][stage_name(Stage(k))] = median(stages[size_t(k)]);
  out["selection_share"] = 1 - out["stages_ms"]["attend"].get<double>() / out["ms"].get<double>();
  out["peak_bytes"] = backend->peak_bytes();
  if (!facts.empty()) out["facts"] = facts;
  return out;
}

}  // namespace
}  // namespace prefill

int main(int argc, char** argv) {
  using namespace prefill;
  if (const Support s = backends().at("cuda").available(); !s) {
    std::cerr << "skipped: " << s.why << "\n";
    return 0;
  }
  const int64_t shortest = argc > 2 ? std::atoll(argv[1]) : 4096, longest = argc > 2 ? std::atoll(argv[2]) : 131072;
  const std::string only = argc > 3 ? argv[3] : "";
  std::map<std::string, double> differences;
  for (const Entry& e : entries())
    if (only.empty() || e.label == only || e.method == "dense") try {
        differences[e.label] = difference(e);
      } catch (const std::exception& error) {
        std::cerr << e.label << ": " << error.what() << "\n";
      }
  for (int64_t n = shortest; n > 0 && n <= longest; n *= 2) {
    const Qkv a = synthetic(n);
    for (const Entry& e : entries()) {
      if (n > e.longest || (!only.empty() && e.label != only && e.method != "dense")) continue;
      try {
        const auto found = differences.find(e.label);
        if (found == differences.end() || !(found->second < 3e-5))
          throw std::runtime_error(found == differences.end() ? "could not be verified"
                                                              : str("differs from cpu-ref: ", found->second));
        json line = measure(e, a);
        line["nmse"] = found->second;
        std::cout << line.dump() << std::endl;
      } catch (const std::exception& error) {
        const std::string why = error.what();
        std::cout << json{{"label", e.label}, {"n", n}, {"error", why.substr(0, 300)}}.dump() << std::endl;
      }
    }
  }
  return 0;
}
