// One task of an attention call (work.h) over one instruction set: online softmax, a panel of queries at a time.
#pragma once
#include <math.h>

#include "kernels/cpu/carve.h"
#include "kernels/cpu/micro.h"
#include "kernels/cpu/work.h"

namespace prefill::kernels::cpu {
namespace {

/// Keys per chunk: with by_tile, none crosses a tile's border.
template <class E>
int chunk_keys(const Problem& p, bool by_tile) {
  return by_tile ? int(least(E::chunk, round_up(p.plan.k_tile, E::key_step))) : E::chunk;
}

/// Probability mass per (chunk, query) for tile means: the sum as it was, and the maximum it was relative to.
struct MassLog {
  float *sum, *max;  // [slots][lanes of the task]
  int32_t* tile;     // [slots]
  int64_t used;
};

/// E: how the products are computed (engine_f32.h).
template <class E>
struct Scratch {
  float *qt, *ot;    // [panels][packed Q], [panels][padded dim][lanes]
  float *max, *sum;  // [panels][lanes]
  float* s;          // [chunk keys][lanes]
  float* rows;       // [lanes][padded dim]
  MassLog mass{nullptr, nullptr, nullptr, 0};
  E engine;
  int64_t bytes;

  Scratch(Carve c, const Problem& p, int64_t heads, int64_t queries, bool tile_mean) : engine(c, p) {
    const int64_t dim = E::padded(p.qkv.head_dim), panels = heads * ceil_div(queries, E::L), n = panels * E::L;
    qt = c.floats(panels * E::q_floats(p.qkv.head_dim));
    ot = c.floats(n * dim);
    max = c.floats(n);
    sum = c.floats(n);
    s = c.floats(int64_t(kMaxChunkKeys) * E::L);
    rows = c.floats(E::L * dim);
    if (tile_mean) {
      const int64_t slots = p.key_tiles * ceil_div(p.plan.k_tile, chunk_keys<E>(p, true));
      mass.sum = c.floats(slots * n);
      mass.max = c.floats(slots * n);
      mass.tile = reinterpret_cast<int32_t*>(c.floats(slots));
    }
    bytes = c.used();
  }
};

template <class E>
class AttendTask {
 public:
  AttendTask(const Problem& p, const Task& t, void* scratch)
      : p_(p),
        a_(p.qkv),
        t_(t),
        dim_(p.qkv.head_dim),
        pdim_(int(E::padded(p.qkv.head_dim))),
        queries_(t.q1 - t.q0),
        head_panels_(ceil_div(queries_, L)),
        means_(t.unit->tile_mean_slot >= 0),
        w_(Carve(scratch), p, t.head_count, queries_, means_) {}

  void run() {
    w_.engine.begin();
    for (int h = 0; h < t_.head_count; ++h)
      for (int64_t x = 0; x < head_panels_; ++x) begin_panel(h, x);
    KeyReader reader(p_, t_, chunk_keys<E>(p_, means_), means_);
    Chunk c;
    while (reader.next(c)) {
      pack(c, true);
      for (int h = 0; h < t_.head_count; ++h)
        for (int64_t x = 0; x < head_panels_; ++x) visit(c, h, x);
      if (means_ && c.source == Chunk::span) w_.mass.tile[w_.mass.used++] = int32_t(c.tile);
    }
    if (means_) write_tile_means(reader);
    for (int h = 0; h < t_.head_count; ++h)
      for (int64_t x = 0; x < head_panels_; ++x) finish_panel(h, x);
    w_.engine.end();
  }

 private:
  using I = typename E::I;
  using V = typename I::V;
  static constexpr int L = E::L, W = I::width, NV = I::vectors;

  int64_t panel(int h, int64_t x) const { return h * head_panels_ + x; }
  int query_head(int h) const { return t_.unit->heads[t_.first_head + h]; }
  int64_t first_query(int64_t x) const { return t_.q0 + x * L; }
  int valid(int64_t x) const { return int(least(L, t_.q1 - first_query(x))); }

  void begin_panel(int h, int64_t x) {
    const int64_t at = panel(h, x);
    const int head = query_head(h), n = valid(x);
    w_.engine.pack_q(at_element(a_.dtype, a_.q, head * a_.q_head_stride + first_query(x) * a_.q_row_stride),
                     a_.q_row_stride, n, w_.rows, w_.qt + at * E::q_floats(dim_));
    float* ot = w_.ot + at * pdim_ * L;
    fill<I>(ot, int64_t(pdim_) * L, 0.f);
    fill<I>(w_.max + at * L, L, -INFINITY);
    fill<I>(w_.sum + at * L, L, 0.f);
    if (!p_.plan.resume_max) return;
    const int64_t state = head * a_.seq_len + first_query(x);
    for (int i = 0; i < n; ++i) {
      w_.max[at * L + i] = p_.plan.resume_max[state + i];
      w_.sum[at * L + i] = p_.plan.resume_sum[state + i];
      widen<I>(Dtype::f32, p_.plan.resume_acc + (state + i) * dim_, w_.rows + int64_t(i) * dim_, dim_);
    }
    for (int i = n; i < L; ++i) fill<I>(w_.rows + int64_t(i) * dim_, dim_, 0.f);
    transpose<I>(w_.rows, dim_, L, dim_, ot, L);
  }

  void pack(Chunk& c, bool values) {
    const int kv = t_.unit->kv_head;
    const void *k = at_element(a_.dtype, a_.k, kv * a_.k_head_stride), *v = at_element(a_.dtype, a_.v, kv * a_.v_head_stride);
    int64_t k_stride = a_.k_row_stride, v_stride = a_.v_row_stride;
    if (c.source == Chunk::pooled) {
      const int64_t base = kv * ceil_div(a_.seq_len, p_.plan.pooled_block) * dim_;
      k = at_element(a_.dtype, p_.plan.pooled_k, base);
      v = at_element(a_.dtype, p_.plan.pooled_v, base);
      k_stride = v_stride = dim_;
    }
    const int padded = int(round_up(c.count, E::key_step));
    for (int j = c.count; j < padded; ++j) c.pos[j] = kNoKey;
    for (int from = 0; from < padded; from += E::group) {
      if (w_.engine.adopt(c, from, kv)) continue;
      const int end = int(least(c.count, from + E::group));
      for (int j = from; j < end; ++j) w_.engine.pack_key(j, at_element(a_.dtype, k, c.pos[j] * k_stride));
      for (int j = from; j < end && values; ++j) w_.engine.pack_value(j, at_element(a_.dtype, v, c.pos[j] * v_stride));
      w_.engine.pad(end, int(least(padded, from + E::group)));
      if (values) w_.engine.finish_values(from);
    }
  }

  struct Reach {
    int keys;   ///< leading keys worth computing, a multiple of key_step
    bool mask;  ///< some (query, key) pair among them is not visible
  };

  Reach reach(const Chunk& c, int64_t x) const {
    const int64_t first = first_query(x), last = first + valid(x) - 1;
    int n = c.count;
    if (c.source == Chunk::pooled) return {int(round_up(n, E::key_step)), n % E::key_step != 0};
    if (c.pos[n - 1] > last) {
      while (n > 0 && c.pos[n - 1] > last) --n;
      if (n == 0) return {0, false};
    }
    const int keys = int(round_up(n, E::key_step));
    bool mask = c.pos[keys - 1] > first;  // the diagonal, or padding
    if (t_.unit->route.kind == route_window) {
      const WindowView& w = p_.plan.windows[t_.unit->route.index];
      const int64_t tail = a_.seq_len - w.last, lo = c.pos[0], hi = c.pos[n - 1];
      if (lo >= w.sink && first - hi >= w.local && last < tail) return {0, false};
      mask = mask || !(hi < w.sink || last - lo < w.local || first >= tail);
    }
    return {keys, mask};
  }

  /// Hides what a query may not see, and finds the maximum again. What a key is hidden from is a range of lanes: the
  /// queries before it, and in a window those past its local reach and not yet among the last.
  void mask_scores(const Chunk& c, int64_t x, int keys, V* top) {
    const int64_t first = first_query(x);
    const bool windowed = t_.unit->route.kind == route_window;
    const WindowView w = windowed ? p_.plan.windows[t_.unit->route.index] : WindowView{};
    auto hide = [](float* s, int64_t from, int64_t to) {
      for (int64_t i = most(from, 0); i < least(to, L); ++i) s[i] = -INFINITY;
    };
    for (int v = 0; v < NV; ++v) top[v] = I::set1(-INFINITY);
    for (int j = 0; j < keys; ++j) {
      float* s = w_.s + j * L;
      if (c.pos[j] == kNoKey) {
        hide(s, 0, L);
      } else if (c.source != Chunk::pooled) {
        hide(s, 0, c.pos[j] - first);
        if (windowed && c.pos[j] >= w.sink) hide(s, c.pos[j] + w.local - first, a_.seq_len - w.last - first);
      }
      for (int v = 0; v < NV; ++v) top[v] = I::max(top[v], I::load(s + v * W));
    }
  }

  /// Scores of the chunk in w_.s; returns the number of keys they cover.
  int score(const Chunk& c, int64_t at, int64_t x, V* top) {
    const Reach r = reach(c, x);
    for (int v = 0; v < NV; ++v) top[v] = I::set1(-INFINITY);
    if (!r.keys) return 0;
    const float bias = c.source == Chunk::pooled ? logf(float(p_.plan.pooled_block)) : 0.f;
    w_.engine.scores(r.keys, w_.qt + at * E::q_floats(dim_), bias, w_.s, top);
    if (r.mask) mask_scores(c, x, r.keys, top);
    return r.keys;
  }

  void visit(const Chunk& c, int h, int64_t x) {
    const int64_t at = panel(h, x);
    V top[NV], sum[NV];
    const int keys = score(c, at, x, top);
    float* max = w_.max + at * L;
    float alpha[L], floor[L];
    bool changed = false;
    for (int v = 0; v < NV; ++v) {
      const V old = I::load(max + v * W), now = I::max(old, top[v]);
      // A lane that has seen no key yet keeps max = -inf; relative to a finite floor its terms are exactly 0.
      const V base = I::max(I::set1(-1e30f), now);
      changed = changed || I::any_differ(old, now);
      I::store(max + v * W, now);
      I::store(floor + v * W, base);
      I::store(alpha + v * W, exp2_of<I>(I::mul(I::sub(old, base), I::set1(kLog2e))));
      sum[v] = I::set1(0.f);
    }
    if (keys) exp_panel<I>(w_.s, keys, floor, sum);
    for (int v = 0; v < NV; ++v) {
      const V before = I::load(w_.sum + at * L + v * W);
      I::store(w_.sum + at * L + v * W, I::fma(before, changed ? I::load(alpha + v * W) : I::set1(1.f), sum[v]));
    }
    if (keys) w_.engine.accumulate(keys, w_.s, changed ? alpha : nullptr, w_.ot + at * pdim_ * L);
    if (means_ && c.source == Chunk::span) {
      const int64_t slot = (w_.mass.used * head_panels_ + x) * L;
      for (int v = 0; v < NV; ++v) {
        I::store(w_.mass.sum + slot + v * W, sum[v]);
        I::store(w_.mass.max + slot + v * W, I::load(floor + v * W));
      }
    }
  }

  /// Tile means of the task's one head: mass of the spans from the log, mass of single columns by a second pass.
  void write_tile_means(KeyReader& reader) {
    const int64_t key_tiles = p_.key_tiles;
    float* out = p_.out.tile_mean + (t_.unit->tile_mean_slot * p_.plan.rows + t_.row) * key_tiles;
    fill<I>(out, key_tiles, 0.f);
    for (int64_t x = 0; x < head_panels_; ++x) {
      float weight[L];  // 1 / (row sum * queries of the row)
      for (int i = 0; i < L; ++i) {
        const float sum = w_.sum[x * L + i];
        weight[i] = i < valid(x) && sum != 0 ? 1.f / (sum * float(queries_)) : 0.f;
      }
      float floor[L];
      for (int i = 0; i < L; ++i) floor[i] = w_.max[x * L + i] > -1e30f ? w_.max[x * L + i] : -1e30f;
      for (int64_t slot = 0; slot < w_.mass.used; ++slot) {
        V total = I::set1(0.f);
        for (int v = 0; v < NV; ++v) {
          const int64_t at = (slot * head_panels_ + x) * L + v * W;
          const V t = I::mul(I::sub(I::load(w_.mass.max + at), I::load(floor + v * W)), I::set1(kLog2e));
          total = I::fma(I::mul(exp2_of<I>(t), I::load(w_.mass.sum + at)), I::load(weight + v * W), total);
        }
        out[w_.mass.tile[slot]] += I::sum(total);
      }
      Chunk c;
      reader.restart_columns();
      while (reader.next(c)) {
        pack(c, false);
        V top[NV], sum[NV];
        const int keys = score(c, x, x, top);
        for (int v = 0; v < NV; ++v) sum[v] = I::set1(0.f);
        exp_panel<I>(w_.s, keys, floor, sum);
        for (int j = 0; j < least(keys, c.count); ++j) {
          V total = I::set1(0.f);
          for (int v = 0; v < NV; ++v) total = I::fma(I::load(w_.s + j * L + v * W), I::load(weight + v * W), total);
          out[c.pos[j] / p_.plan.k_tile] += I::sum(total);
        }
      }
    }
  }

  void finish_panel(int h, int64_t x) {
    const int64_t at = panel(h, x);
    const int head = query_head(h), n = valid(x);
    const OutView& o = p_.out;
    float* ot = w_.ot + at * pdim_ * L;
    const int64_t state = head * a_.seq_len + first_query(x);
    if (o.state_max) {
      transpose<I>(ot, L, dim_, L, w_.rows, dim_);
      for (int i = 0; i < n; ++i) {
        o.state_max[state + i] = w_.max[at * L + i];
        o.state_sum[state + i] = w_.sum[at * L + i];
        widen<I>(Dtype::f32, w_.rows + int64_t(i) * dim_, o.state_acc + (state + i) * dim_, dim_);
      }
    }
    if (o.lse)
      for (int i = 0; i < n; ++i) o.lse[state + i] = w_.max[at * L + i] + logf(w_.sum[at * L + i]);
    if (!o.out) return;
    float inverse[L];
    for (int i = 0; i < L; ++i) inverse[i] = w_.sum[at * L + i] != 0 ? 1.f / w_.sum[at * L + i] : 0.f;
    for (int d = 0; d < dim_; ++d)
      for (int v = 0; v < NV; ++v)
        I::store(ot + d * L + v * W, I::mul(I::load(ot + d * L + v * W), I::load(inverse + v * W)));
    transpose<I>(ot, L, dim_, L, w_.rows, dim_);
    for (int i = 0; i < n; ++i)
      narrow<I>(a_.dtype, w_.rows + int64_t(i) * dim_,
                at_element(a_.dtype, o.out, head * o.out_head_stride + (first_query(x) + i) * o.out_row_stride), dim_);
  }

  const Problem& p_;
  const QkvView& a_;
  const Task& t_;
  const int dim_, pdim_;
  const int64_t queries_, head_panels_;
  const bool means_;
  Scratch<E> w_;
};

template <class E>
size_t attend_scratch_bytes(const Problem& p, int64_t heads, int64_t queries, bool tile_mean) {
  return size_t(Scratch<E>(Carve(nullptr), p, heads, queries, tile_mean).bytes);
}

template <class E>
void attend_task(const Problem& p, const Task& t, void* scratch) {
  AttendTask<E>(p, t, scratch).run();
}

}  // namespace
}  // namespace prefill::kernels::cpu
