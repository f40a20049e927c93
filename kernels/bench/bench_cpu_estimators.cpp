// Estimators on the CPU (what MInference, FlexPrefill and block methods select by), each held against the base class'
// ATen version before it is timed, beside that version and beside dense attention on the same tensors.
#include "kernels/bench/cases.h"

namespace prefill::bench {
namespace {

/// The base class under a name.
class AtenEstimators final : public KernelBackend {
 public:
  std::string name() const override { return "aten"; }
  std::string kernel_name(const Qkv&, const AttentionPlan&) const override { return "none"; }
  at::Device device() const override { return at::kCPU; }
  Support supports(const Qkv&, const AttentionPlan&) const override { return {false, "estimators only"}; }
  AttendResult attend(const Qkv&, const AttentionPlan&, AttendOptions) const override {
    throw Unsupported("estimators only");
  }
};

using Estimate = std::vector<at::Tensor> (*)(const KernelBackend&, const Qkv&);

std::vector<at::Tensor> pool(const KernelBackend& b, const Qkv& a) { return {b.pool_mean(a.q, 64), b.pool_mean(a.k, 128)}; }
std::vector<at::Tensor> probs(const KernelBackend& b, const Qkv& a) { return {b.tail_probs(a, 64)}; }
std::vector<at::Tensor> sums(const KernelBackend& b, const Qkv& a) {
  auto [vertical, slash] = b.tail_sums(a, 64);
  return {vertical, slash};
}

void run_estimate(benchmark::State& state, Estimate estimate, bool own, int64_t n, int dim, at::ScalarType type) {
  const Qkv a = make_qkv(4, 2, n, dim, type);
  const AtenEstimators aten;
  const auto cpu = backends().at("cpu").make();
  const auto got = estimate(*cpu, a), want = estimate(aten, a);
  for (size_t i = 0; i < got.size(); ++i)
    if (!((got[i] - want[i]).abs().max().item<double>() <= 1e-4))
      return state.SkipWithError("the cpu backend and the base class disagree by more than 1e-4");
  const KernelBackend& backend = own ? *cpu : static_cast<const KernelBackend&>(aten);
  for (auto _ : state) benchmark::DoNotOptimize(estimate(backend, a)[0].data_ptr());
}

void register_all() {
  for (auto type : {at::kFloat, at::kBFloat16})
    for (int dim : {64, 128}) {
      const std::string shape = str(type == at::kFloat ? "f32" : "bf16", "/d", dim, "/h4:2/n8192");
      for (auto [name, estimate] : {std::pair<const char*, Estimate>{"pool_mean", pool}, {"tail_probs", probs}, {"tail_sums", sums}})
        for (bool own : {true, false})
          benchmark::RegisterBenchmark(str(name, own ? "/cpu/" : "/aten/", shape).c_str(),
                                       [=, e = estimate](benchmark::State& s) { run_estimate(s, e, own, 8192, dim, type); })
              ->UseRealTime()
              ->Unit(benchmark::kMillisecond);
      const Case dense{"cpu", 4, 2, dim, 8192, type, [](int heads, int64_t) {
                         return AttentionPlan::uniform(heads, {Route::dense, 0});
                       }};
      benchmark::RegisterBenchmark(str("dense/cpu/", shape).c_str(), [=](benchmark::State& s) { run(s, shape, dense); })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
}

}  // namespace
}  // namespace prefill::bench

int main(int argc, char** argv) {
  prefill::bench::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
