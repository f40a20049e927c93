#include "kernels/cpu/work.h"

#include <cmath>

namespace prefill::kernels::cpu {
namespace {

Result bad(const char* why) { return {Status::bad_argument, why}; }

/// One row of a CSR list: pointers and ids in range and ascending, `apart` from one to the next at least.
Result check_list(const int32_t* ptr, int64_t capacity, const int32_t* idx, int64_t r, int64_t limit, int64_t apart,
                  const char* what) {
  const int64_t b = ptr[r], e = ptr[r + 1];
  if (b < 0 || e < b || e > capacity) return bad(what);
  for (int64_t i = b; i < e; ++i) {
    if (idx[i] < 0 || idx[i] >= limit || (i > b && idx[i] - int64_t(idx[i - 1]) < apart)) return bad(what);
  }
  return {};
}

Result check_tiles(const QkvView& a, const PlanView& p, int32_t pattern) {
  for (int64_t r = 0; r < p.rows; ++r) {
    const int64_t last_query = least((r + 1) * p.q_tile, a.seq_len) - 1;
    if (Result res = check_list(p.tile_ptr + pattern * p.tile_ptr_stride, p.tile_idx_stride,
                                p.tile_idx + pattern * p.tile_idx_stride, r, last_query / p.k_step + 1,
                                p.k_tile / p.k_step,
                                "a row's tiles must ascend, not overlap, and start no later than the row's last query");
        res.status != Status::ok)
      return res;
  }
  if (!p.col_ptr) return {};
  if (p.col_rows < 1) return bad("col_rows must be at least 1");
  for (int64_t g = 0; g < ceil_div(p.rows, p.col_rows); ++g) {
    if (Result res = check_list(p.col_ptr + pattern * p.col_ptr_stride, p.col_idx_stride,
                                p.col_idx + pattern * p.col_idx_stride, g,
                                most(g * p.col_rows * p.q_tile, 0), 1,
                                "a group's columns must ascend and lie before the group's first query");
        res.status != Status::ok)
      return res;
  }
  return {};
}

}  // namespace

Result validate(const QkvView& a, const PlanView& p, const OutView& o) {
  if (a.seq_len < 1 || a.q_heads < 1 || a.kv_heads < 1 || a.head_dim < 1) return bad("empty shape");
  if (a.seq_len >= kNoKey - 1024) return bad("more than 2^31 tokens");
  if (a.q_heads % a.kv_heads) return bad("q_heads must be a multiple of kv_heads");
  if (!a.q || !a.k || !a.v) return bad("q, k and v must not be null");
  if (!std::isfinite(a.scale)) return bad("scale must be finite");
  if (!p.heads) return bad("the plan has no routes");
  bool tiles = p.pooled_k != nullptr || o.tile_mean != nullptr;
  for (int h = 0; h < a.q_heads; ++h) tiles = tiles || p.heads[h].kind == route_tiles;
  if (tiles) {
    if (p.q_tile < 1 || p.k_tile < 1) return bad("tile sizes must be at least 1");
    if (p.k_step < 1 || p.k_tile % p.k_step) return bad("k_step must divide k_tile");
    if (p.pooled_k && p.k_step != p.k_tile) return bad("the pooled complement needs tiles of an aligned grid");
    if (p.rows != ceil_div(a.seq_len, p.q_tile)) return bad("rows must be ceil(seq_len / q_tile)");
  }
  for (int h = 0; h < a.q_heads; ++h) {
    const RouteView r = p.heads[h];
    if (r.kind > route_tiles) return bad("unknown route kind");
    if (r.kind == route_window) {
      if (r.index < 0 || r.index >= p.window_count || !p.windows) return bad("route to a window that is not there");
      const WindowView& w = p.windows[r.index];
      if (w.sink < 0 || w.local < 0 || w.last < 0) return bad("window sizes must not be negative");
    }
    if (r.kind == route_tiles) {
      if (r.index < 0 || r.index >= p.patterns || !p.tile_ptr) return bad("route to a pattern that is not there");
      bool seen = false;  // heads that share a pattern are checked once
      for (int g = 0; g < h && !seen; ++g) seen = p.heads[g].kind == route_tiles && p.heads[g].index == r.index;
      if (seen) continue;
      if (Result res = check_tiles(a, p, r.index); res.status != Status::ok) return res;
    }
  }
  if ((p.resume_max || p.resume_sum || p.resume_acc) && !(p.resume_max && p.resume_sum && p.resume_acc))
    return bad("resume needs max, sum and acc");
  if ((o.state_max || o.state_sum || o.state_acc) && !(o.state_max && o.state_sum && o.state_acc))
    return bad("the softmax state needs max, sum and acc");
  if ((p.pooled_k || p.pooled_v) && (!(p.pooled_k && p.pooled_v) || p.pooled_block < 1))
    return bad("the pooled complement needs keys, values and a block size");
  if (!o.out && !o.state_max) return bad("nothing to write");
  if (o.tile_mean && !o.want_tile_mean) return bad("tile_mean without the heads that want it");
  return {};
}

KeyReader::KeyReader(const Problem& p, const Task& t, int capacity, bool by_tile)
    : p_(p), t_(t), capacity_(capacity), by_tile_(by_tile) {
  if (t.unit->route.kind != route_tiles) return;
  const PlanView& plan = p.plan;
  const int64_t pattern = t.unit->route.index;
  const int32_t* ptr = plan.tile_ptr + pattern * plan.tile_ptr_stride + t.row;
  const int32_t* idx = plan.tile_idx + pattern * plan.tile_idx_stride;
  tile_ = tile_begin_ = idx + ptr[0];
  tile_end_ = idx + ptr[1];
  pooled_tile_ = tile_begin_;
  if (plan.col_ptr) {
    const int32_t* cols = plan.col_ptr + pattern * plan.col_ptr_stride + t.row / plan.col_rows;
    const int32_t* ids = plan.col_idx + pattern * plan.col_idx_stride;
    column_ = column_begin_ = ids + cols[0];
    column_end_ = ids + cols[1];
  }
  if (plan.pooled_k) block_end_ = t.row * plan.q_tile / plan.pooled_block;
}

bool KeyReader::next(Chunk& c) {
  c.count = 0;
  c.tile = -1;
  return fill_spans(c) || fill_columns(c) || fill_pooled(c);
}

void KeyReader::restart_columns() {
  column_ = column_begin_;
  block_ = block_end_;
}

/// The next stretch of neighbouring keys [run_, run_end_); queries of this task see nothing at or after q1.
bool KeyReader::next_run() {
  const Unit& u = *t_.unit;
  if (u.route.kind == route_tiles) {
    if (tile_ == tile_end_) return false;
    run_ = int64_t(*tile_++) * p_.plan.k_step;
    run_end_ = least(run_ + p_.plan.k_tile, t_.q1);
    return true;
  }
  if (u.route.kind == route_dense) {
    if (step_++) return false;
    run_ = 0;
    run_end_ = t_.q1;
    return true;
  }
  const WindowView& w = p_.plan.windows[u.route.index];
  const int64_t local_begin = t_.q1 > p_.qkv.seq_len - w.last ? 0 : most(0, t_.q0 - w.local + 1);
  const int64_t sink_end = least(w.sink, t_.q1);
  if (step_ == 0) {
    step_ = 1;
    run_ = 0;
    run_end_ = least(sink_end, local_begin);
    if (run_ < run_end_) return true;
  }
  if (step_ == 1) {
    step_ = 2;
    run_ = local_begin;
    run_end_ = t_.q1;
    return run_ < run_end_;
  }
  return false;
}

bool KeyReader::fill_spans(Chunk& c) {
  c.source = Chunk::span;
  while (c.count < capacity_) {
    if (run_ >= run_end_) {
      if (!next_run()) break;
      if (run_ >= run_end_) continue;
    }
    int64_t end = least(run_end_, run_ + capacity_ - c.count);
    if (by_tile_) {
      const int64_t tile = run_ / p_.plan.k_tile;
      if (c.count && tile != c.tile) break;
      c.tile = tile;
      end = least(end, (tile + 1) * p_.plan.k_tile);
    }
    for (; run_ < end; ++run_) c.pos[c.count++] = int32_t(run_);
  }
  return c.count > 0;
}

bool KeyReader::fill_columns(Chunk& c) {
  c.source = Chunk::columns;
  for (; c.count < capacity_ && column_ != column_end_; ++column_) c.pos[c.count++] = *column_;
  return c.count > 0;
}

bool KeyReader::fill_pooled(Chunk& c) {
  c.source = Chunk::pooled;
  const int64_t block = p_.plan.pooled_block, tile = p_.plan.k_tile;
  for (; c.count < capacity_ && block_ < block_end_; ++block_) {
    while (pooled_tile_ != tile_end_ && (*pooled_tile_ + 1) * tile <= block_ * block) ++pooled_tile_;
    const bool covered = pooled_tile_ != tile_end_ && *pooled_tile_ * tile < (block_ + 1) * block;
    if (!covered) c.pos[c.count++] = int32_t(block_);
  }
  return c.count > 0;
}

}  // namespace prefill::kernels::cpu
