// Dense attention by every kernel there is, and tile plans by density, on one GPU: own kernel, cuDNN and FlashAttention-2
// through LibTorch. Each is verified against the others in this process before it is timed; times are CUDA events.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <functional>
#include <iostream>

#include "core/backend.h"

namespace prefill {
namespace {

constexpr int kQueryHeads = 32, kKeyHeads = 8, kDim = 128;

Qkv make_qkv(int64_t n) {
  at::manual_seed(5);
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  return {at::randn({kQueryHeads, n, kDim}, options), at::randn({kKeyHeads, n, kDim}, options),
          at::randn({kKeyHeads, n, kDim}, options), 1 / std::sqrt(double(kDim))};
}

double dense_flops(int64_t n) { return 4. * kDim * kQueryHeads * (double(n) * (n + 1) / 2); }

/// Times one call per iteration between two events; the first calls warm up.
void time_on_device(benchmark::State& state, double flops, const std::function<void()>& call) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  for (int i = 0; i < 2; ++i) call();
  double total = 0;
  for (auto _ : state) {
    cudaEventRecord(begin);
    call();
    cudaEventRecord(end);
    if (cudaEventSynchronize(end) != cudaSuccess) {
      state.SkipWithError("the device failed");
      break;
    }
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    state.SetIterationTime(1e-3 * ms);
    total += 1e-3 * ms;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  state.counters["TFLOP/s"] = benchmark::Counter(1e-12 * flops * double(state.iterations()) / total);
}

at::Tensor torch_dense(const Qkv& a) {
  return at::scaled_dot_product_attention(a.q.unsqueeze(0), a.k.unsqueeze(0), a.v.unsqueeze(0), {}, 0.0, true, a.scale, true)
      .squeeze(0);
}

/// LibTorch picks a kernel by these flags; only one is left on.
void choose(bool cudnn) {
  auto& context = at::globalContext();
  context.setSDPUseCuDNN(cudnn);
  context.setSDPUseFlash(!cudnn);
  context.setSDPUseMemEfficient(false);
  context.setSDPUseMath(false);
}

void dense(benchmark::State& state, const std::string& kernel) {
  const int64_t n = state.range(0);
  const Qkv a = make_qkv(n);
  const auto cuda = backends().at("cuda").make();
  const AttentionPlan plan = AttentionPlan::uniform(kQueryHeads, {Route::dense, 0});
  if (kernel != "own") choose(kernel == "cudnn");
  const auto call = [&]() -> at::Tensor { return kernel == "own" ? cuda->attend(a, plan).out : torch_dense(a); };
  const auto x = call().narrow(1, n - 256, 256).to(at::kDouble);
  choose(kernel == "own");  // the own kernel is checked against cuDNN, the others against the own kernel
  const auto y = (kernel == "own" ? torch_dense(a) : cuda->attend(a, plan).out).narrow(1, n - 256, 256).to(at::kDouble);
  if (!(((x - y).square().sum() / y.square().sum()).item<double>() < 3e-5))
    return state.SkipWithError("the kernels disagree");
  if (kernel != "own") choose(kernel == "cudnn");
  time_on_device(state, dense_flops(n), [&] { benchmark::DoNotOptimize(call()); });
}

/// The diagonal and tiles at random, one pattern per key/value head; range(1) is the density in thousandths.
void tiles(benchmark::State& state) {
  const int64_t n = state.range(0), rows = (n + 127) / 128;
  const Qkv a = make_qkv(n);
  const auto cuda = backends().at("cuda").make();
  const auto row = at::arange(rows, a.q.options().dtype(at::kLong)).unsqueeze(1), column = row.t();
  const auto mask = ((at::rand({kKeyHeads, rows, rows}, a.q.options().dtype(at::kFloat)) < double(state.range(1)) / 1000) |
                     (row == column)) & (column <= row);
  AttentionPlan plan;
  plan.tiles = tiles_from_mask(mask, 128, 128);
  for (int h = 0; h < kQueryHeads; ++h) plan.heads.push_back({Route::tiles, h / (kQueryHeads / kKeyHeads)});
  AttentionPlan full = AttentionPlan::uniform(kQueryHeads, {Route::tiles, 0});
  full.tiles = tiles_from_mask((column <= row).unsqueeze(0), 128, 128);
  if (!cuda->attend(a, full).out.equal(cuda->attend(a, AttentionPlan::uniform(kQueryHeads, {Route::dense, 0})).out))
    return state.SkipWithError("a full tile plan and a dense route differ");
  const double share = mask.sum().item<double>() / kKeyHeads / (double(rows) * (rows + 1) / 2);
  state.counters["density"] = share;
  time_on_device(state, share * dense_flops(n), [&] { benchmark::DoNotOptimize(cuda->attend(a, plan)); });
}

}  // namespace
}  // namespace prefill

int main(int argc, char** argv) {
  using namespace prefill;
  benchmark::Initialize(&argc, argv);
  if (const Support s = backends().at("cuda").available(); !s) {
    std::cerr << "skipped: " << s.why << "\n";
    return 0;
  }
  for (const char* kernel : {"own", "cudnn", "flash"})
    benchmark::RegisterBenchmark((std::string("dense/") + kernel).c_str(),
                                 [kernel](benchmark::State& s) { dense(s, kernel); })
        ->Arg(8192)->Arg(32768)->Arg(131072)->UseManualTime()->Unit(benchmark::kMillisecond)->MinTime(0.3);
  benchmark::RegisterBenchmark("tiles128", tiles)
      ->ArgsProduct({{8192, 32768, 131072}, {500, 100, 50}})->UseManualTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
