// Cuts an attention call into tasks and runs them on OpenMP threads.
#include <omp.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "kernels/cpu/features.h"
#include "kernels/cpu/work.h"

namespace prefill::kernels {
namespace {
using namespace cpu;

int thread_count(int wanted) { return wanted > 0 ? wanted : omp_get_max_threads(); }

/// 64-byte aligned memory, freed on scope exit; null when there is none.
struct Scratch {
  explicit Scratch(size_t bytes) : at(std::aligned_alloc(64, size_t(round_up(int64_t(bytes), 64)))) {}
  ~Scratch() { std::free(at); }
  Scratch(const Scratch&) = delete;
  void* at;
};

struct Schedule {
  std::vector<int32_t> heads;  // of all units, each unit's in a row
  std::vector<Unit> units;
  std::vector<Task> tasks;
  int64_t most_heads = 0, most_queries = 0;
  bool tile_mean = false;
};

void group_heads(const Problem& p, Schedule& s) {
  const int group = p.qkv.q_heads / p.qkv.kv_heads;
  auto wants_mean = [&](int h) { return p.out.tile_mean && p.out.want_tile_mean[h]; };
  s.heads.reserve(p.qkv.q_heads);  // the units point into it
  std::vector<int32_t> mean_slot(p.qkv.q_heads, -1);
  for (int32_t h = 0, slot = 0; h < p.qkv.q_heads; ++h)
    if (wants_mean(h)) mean_slot[h] = slot++;
  for (int kv = 0; kv < p.qkv.kv_heads; ++kv) {
    std::vector<bool> taken(group, false);
    for (int i = 0; i < group; ++i) {
      const int h = kv * group + i;
      if (taken[i]) continue;
      Unit u{kv, s.heads.data() + s.heads.size(), 1, p.plan.heads[h], mean_slot[h]};
      s.heads.push_back(h);
      for (int j = i + 1; j < group && u.tile_mean_slot < 0; ++j) {
        const RouteView r = p.plan.heads[kv * group + j];
        const bool same = r.kind == u.route.kind && (r.kind == route_dense || r.index == u.route.index);
        if (!same || wants_mean(kv * group + j)) continue;
        taken[j] = true;
        s.heads.push_back(kv * group + j);
        ++u.head_count;
      }
      s.units.push_back(u);
    }
  }
}

/// Tasks of a unit, longest first: rows from the end of the prompt, where causality leaves the most keys. What
/// runs last is short, so that threads finish together. Task sizes depend on the plan alone, never on the
/// number of threads: the bits of the result must not.
void cut_unit(const Problem& p, const Unit& u, const IsaKernels& isa, Schedule& s) {
  const int panel = isa.lanes;
  const int64_t budget = most(64, isa.lane_budget / p.qkv.head_dim) / panel * panel;  // lanes whose Q and O fit the cache
  const bool grid = u.route.kind == route_tiles || u.tile_mean_slot >= 0;
  int64_t queries = grid ? p.plan.q_tile
                         : most(panel, least(128, budget / least(u.head_count, budget / panel)) / panel * panel);
  const int64_t heads = most(1, least(u.head_count, budget / round_up(queries, panel)));
  for (int64_t r = ceil_div(p.qkv.seq_len, queries) - 1; r >= 0; --r)
    for (int64_t h = 0; h < u.head_count; h += heads) {
      const Task t{&u, int32_t(h), int32_t(least(heads, u.head_count - h)), r * queries,
                   least((r + 1) * queries, p.qkv.seq_len), r};
      s.tasks.push_back(t);
    }
  s.most_heads = most(s.most_heads, heads);
  s.most_queries = most(s.most_queries, queries);
  s.tile_mean = s.tile_mean || u.tile_mean_slot >= 0;
}

}  // namespace

Result attend_cpu(const QkvView& a, const PlanView& p, const OutView& o, int threads) try {
  if (Result r = validate(a, p, o); r.status != Status::ok) return r;
  if (a.head_dim % 8) return {Status::unsupported, "head_dim must be a multiple of 8"};
  if (a.head_dim > 1024) return {Status::unsupported, "head_dim is above 1024"};
  const IsaKernels& isa = attend_kernels(a.dtype);
  const Scratch packed(isa.pack ? isa.packed_bytes(a) : 64);
  const Problem problem{a, p, o, o.tile_mean ? ceil_div(a.seq_len, p.k_tile) : 0, isa.pack ? packed.at : nullptr};
  Schedule s;
  group_heads(problem, s);
  for (const Unit& u : s.units) cut_unit(problem, u, isa, s);
  const size_t bytes = isa.scratch_bytes(problem, s.most_heads, s.most_queries, s.tile_mean);
  const int64_t count = int64_t(s.tasks.size());
  bool no_memory = false;
#pragma omp parallel num_threads(int(least(thread_count(threads), count)))
  {
    Scratch scratch(bytes);
    if (!scratch.at) {
#pragma omp atomic write
      no_memory = true;
    }
    // Without memory for the packed copy, keys are packed on the spot. A thread without scratch memory fails the call.
    const int64_t blocks = problem.packed ? a.kv_heads * ceil_div(a.seq_len, 32) : 0;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < blocks; ++i)
      if (scratch.at) isa.pack(problem, i % a.kv_heads, i / a.kv_heads, scratch.at);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < count; ++i)
      if (scratch.at) isa.attend(problem, s.tasks[i], scratch.at);
  }
  if (no_memory) return {Status::out_of_memory, "no memory for a thread's scratch space"};
  return {};
} catch (const std::bad_alloc&) {
  return {Status::out_of_memory, "no memory for the task list"};
}

const char* attend_cpu_isa(Dtype dtype) { return attend_kernels(dtype).name; }

Result tail_probs_cpu(const QkvView& a, int64_t tail, float* probs, float* vertical, float* slash, int threads) {
  if (a.seq_len < 1 || a.q_heads < 1 || a.kv_heads < 1 || a.q_heads % a.kv_heads || tail < 1)
    return {Status::bad_argument, "empty shape, or q_heads is no multiple of kv_heads"};
  if (a.head_dim % 8) return {Status::unsupported, "head_dim must be a multiple of 8"};
  const IsaKernels& isa = vector_kernels();
  const int64_t rows = least(tail, a.seq_len);
  const size_t bytes = isa.tail_scratch_bytes(a, rows, probs != nullptr);
  bool no_memory = false;
#pragma omp parallel num_threads(int(least(thread_count(threads), a.q_heads)))
  {
    Scratch scratch(bytes);
    if (!scratch.at) {
#pragma omp atomic write
      no_memory = true;
    }
#pragma omp for schedule(dynamic, 1)
    for (int h = 0; h < a.q_heads; ++h) {
      if (!scratch.at) continue;
      isa.tail(a, h, rows, probs ? probs + h * rows * a.seq_len : nullptr,
               vertical ? vertical + h * a.seq_len : nullptr, slash ? slash + h * a.seq_len : nullptr, scratch.at);
    }
  }
  if (no_memory) return {Status::out_of_memory, "no memory for a thread's attention rows"};
  return {};
}

Result pool_mean_cpu(const void* x, Dtype dtype, int heads, int64_t seq_len, int dim, int64_t head_stride,
                     int64_t row_stride, int tile, float* out, int threads) {
  if (!x || heads < 1 || seq_len < 1 || dim < 1 || tile < 1) return {Status::bad_argument, "empty shape"};
  const IsaKernels& isa = vector_kernels();
  const int64_t tiles = ceil_div(seq_len, tile), count = heads * tiles;
#pragma omp parallel for schedule(static) num_threads(int(least(thread_count(threads), count)))
  for (int64_t i = 0; i < count; ++i) {
    const int64_t h = i / tiles, r0 = i % tiles * tile;
    isa.pool(at_element(dtype, x, h * head_stride), dtype, row_stride, r0, least(r0 + tile, seq_len), dim,
             out + i * dim);
  }
  return {};
}

}  // namespace prefill::kernels
