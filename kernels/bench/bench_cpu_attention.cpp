// Attention on the CPU: dense against LibTorch's SDPA, and sparse plans against dense, by density.
//   bench_cpu_attention                         the short set (under 3 minutes on 2 cores)
//   bench_cpu_attention --full                  also 4K and 16K tokens, more densities, D 64 and 128 everywhere
//   bench_cpu_attention --benchmark_filter=...  and the other flags of Google Benchmark
// Every kind of plan is held against cpu-ref before it is timed; a wrong one is reported as an error, without a time.
// Times are wall time on all threads (OMP_NUM_THREADS). Compare within one run only.
#include <cstring>

#include "kernels/bench/cases.h"

namespace prefill::bench {
namespace {

const char* type_name(at::ScalarType t) { return t == at::kFloat ? "f32" : t == at::kHalf ? "f16" : "bf16"; }

void add(const std::string& what, Case c) {
  const std::string name = str(what, "/", type_name(c.dtype), "/d", c.dim, "/h", c.q_heads, ":", c.kv_heads, "/n", c.n);
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { run(s, name, c); })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

MakePlan dense() {
  return [](int heads, int64_t) { return AttentionPlan::uniform(heads, {Route::dense, 0}); };
}
MakePlan tiles(int tile, double density) {
  return [=](int heads, int64_t n) { return random_tiles(heads, n, tile, density); };
}

void register_all(bool full) {
  const std::vector<int64_t> lengths = full ? std::vector<int64_t>{4096, 8192, 16384} : std::vector<int64_t>{8192};
  for (auto type : {at::kFloat, at::kBFloat16})
    for (int dim : {64, 128})
      for (int64_t n : lengths) {
        const int heads = dim == 64 ? 4 : 2, kv = dim == 64 ? 2 : 1;
        add("dense/torch-sdpa", {"torch-sdpa", heads, kv, dim, n, type, dense()});
        add("dense/cpu", {"cpu", heads, kv, dim, n, type, dense()});
        if (!full && (dim == 128) != (type == at::kBFloat16)) continue;  // short set: f32 at 64, bf16 at 128
        for (double density : full ? std::vector<double>{0.05, 0.1, 0.2, 0.5} : std::vector<double>{0.1, 0.5})
          for (int tile : {64, 128})
            add(str("tiles", tile, "/density", density), {"cpu", heads, kv, dim, n, type, tiles(tile, density)});
        for (int q_tile : {64, 128})
          add(str("free", q_tile, "x64/density0.5"), {"cpu", heads, kv, dim, n, type, [=](int h, int64_t m) {
                                                       return random_free_tiles(h, m, q_tile, 64, 0.5);
                                                     }});
        add("columns/density0.1", {"cpu", heads, kv, dim, n, type, [](int h, int64_t m) {
                                     return random_columns(h, m, 64, 0.1);
                                   }});
        add("window/sink128_local1024", {"cpu", heads, kv, dim, n, type, [](int h, int64_t) {
                                           return window(h, 128, 1024);
                                         }});
      }
  for (int group : full ? std::vector<int>{1, 3, 4, 8} : std::vector<int>{8}) {
    add("gqa/dense/cpu", {"cpu", group, 1, 64, 4096, at::kBFloat16, dense()});
    add("gqa/tiles64/density0.2", {"cpu", group, 1, 64, 4096, at::kBFloat16, tiles(64, 0.2)});
  }
}

}  // namespace
}  // namespace prefill::bench

int main(int argc, char** argv) {
  bool full = false;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--full") == 0)
      full = true;
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  prefill::bench::register_all(full);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
