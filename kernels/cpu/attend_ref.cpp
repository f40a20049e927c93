// The oracle: one query at a time, one visible key after the other, float in, double sums. It shares nothing
// with the fast kernels but the argument check, and is written to be read, not to be fast.
#include <cmath>
#include <limits>
#include <new>
#include <vector>

#include "kernels/cpu/work.h"

namespace prefill::kernels {
namespace {
using namespace cpu;

/// Keys that query i of a head sees, and the pooled blocks that stand in for the rest.
void visible_keys(const QkvView& a, const PlanView& p, RouteView route, int64_t i, std::vector<int64_t>& keys,
                  std::vector<int64_t>& blocks) {
  keys.clear();
  blocks.clear();
  if (route.kind == route_dense) {
    for (int64_t j = 0; j <= i; ++j) keys.push_back(j);
    return;
  }
  if (route.kind == route_window) {
    const WindowView& w = p.windows[route.index];
    for (int64_t j = 0; j <= i; ++j)
      if (j < w.sink || i - j < w.local || i >= a.seq_len - w.last) keys.push_back(j);
    return;
  }
  const int64_t row = i / p.q_tile;
  const int32_t* ptr = p.tile_ptr + route.index * p.tile_ptr_stride;
  const int32_t* idx = p.tile_idx + route.index * p.tile_idx_stride;
  for (int32_t t = ptr[row]; t < ptr[row + 1]; ++t) {
    const int64_t start = int64_t(idx[t]) * p.k_step;
    for (int64_t j = start; j < start + p.k_tile && j <= i; ++j) keys.push_back(j);
  }
  if (p.col_ptr) {
    const int64_t group = row / p.col_rows;
    const int32_t* col_ptr = p.col_ptr + route.index * p.col_ptr_stride;
    const int32_t* col_idx = p.col_idx + route.index * p.col_idx_stride;
    for (int32_t c = col_ptr[group]; c < col_ptr[group + 1]; ++c) keys.push_back(col_idx[c]);
  }
  if (!p.pooled_k) return;
  const int64_t first_query = row * p.q_tile;
  for (int64_t b = 0; (b + 1) * p.pooled_block <= first_query; ++b) {
    bool touched = false;
    for (int32_t t = ptr[row]; t < ptr[row + 1]; ++t) {
      const int64_t begin = int64_t(idx[t]) * p.k_tile, end = begin + p.k_tile;
      touched = touched || (begin < (b + 1) * p.pooled_block && end > b * p.pooled_block);
    }
    if (!touched) blocks.push_back(b);
  }
}

struct Term {
  double logit;
  const void* value;  // [head_dim]
};

struct Row {
  double max, sum;
  std::vector<double> acc;
};

/// Softmax state of one query of one head; terms[] keeps the logits in the order of keys, then blocks.
void attend_row(const QkvView& a, const PlanView& p, int h, int64_t i, const std::vector<int64_t>& keys,
                const std::vector<int64_t>& blocks, std::vector<Term>& terms, Row& row) {
  const int kv = h / (a.q_heads / a.kv_heads), dim = a.head_dim;
  const void* q = at_element(a.dtype, a.q, h * a.q_head_stride + i * a.q_row_stride);
  auto logit = [&](const void* key) {
    double dot = 0;
    for (int d = 0; d < dim; ++d) dot += double(load_scalar(a.dtype, q, d)) * load_scalar(a.dtype, key, d);
    return dot * a.scale;
  };
  terms.clear();
  for (int64_t j : keys)
    terms.push_back({logit(at_element(a.dtype, a.k, kv * a.k_head_stride + j * a.k_row_stride)),
                     at_element(a.dtype, a.v, kv * a.v_head_stride + j * a.v_row_stride)});
  const int64_t pooled_rows = p.pooled_k ? ceil_div(a.seq_len, p.pooled_block) : 0;
  for (int64_t b : blocks) {
    const int64_t at = (kv * pooled_rows + b) * dim;
    terms.push_back({logit(at_element(a.dtype, p.pooled_k, at)) + std::log(double(p.pooled_block)),
                     at_element(a.dtype, p.pooled_v, at)});
  }
  row.max = -std::numeric_limits<double>::infinity();
  row.sum = 0;
  row.acc.assign(dim, 0.0);
  const int64_t state = h * a.seq_len + i;
  if (p.resume_max) row.max = p.resume_max[state];
  for (const Term& t : terms) row.max = std::fmax(row.max, t.logit);
  if (p.resume_max && p.resume_sum[state] > 0) {
    const double weight = std::exp(p.resume_max[state] - row.max);
    row.sum = p.resume_sum[state] * weight;
    for (int d = 0; d < dim; ++d) row.acc[d] = p.resume_acc[state * dim + d] * weight;
  }
  for (const Term& t : terms) {
    const double weight = std::exp(t.logit - row.max);
    row.sum += weight;
    for (int d = 0; d < dim; ++d) row.acc[d] += weight * load_scalar(a.dtype, t.value, d);
  }
}

void write_row(const QkvView& a, const OutView& o, int h, int64_t i, const Row& row) {
  const int64_t state = h * a.seq_len + i;
  for (int d = 0; d < a.head_dim; ++d) {
    if (o.out)
      store_scalar(a.dtype, o.out, h * o.out_head_stride + i * o.out_row_stride + d,
                   row.sum > 0 ? float(row.acc[d] / row.sum) : (row.sum == row.sum ? 0.f : float(row.sum)));
    if (o.state_acc) o.state_acc[state * a.head_dim + d] = float(row.acc[d]);
  }
  if (o.lse) o.lse[state] = float(row.max + std::log(row.sum));
  if (o.state_max) o.state_max[state] = float(row.max);
  if (o.state_sum) o.state_sum[state] = float(row.sum);
}

}  // namespace

Result attend_reference(const QkvView& a, const PlanView& p, const OutView& o) try {
  if (Result r = validate(a, p, o); r.status != Status::ok) return r;
  const int64_t key_tiles = o.tile_mean ? ceil_div(a.seq_len, p.k_tile) : 0;
  int64_t slot = 0;
  std::vector<int64_t> keys, blocks;
  std::vector<Term> terms;
  Row row;
  for (int h = 0; h < a.q_heads; ++h) {
    const bool means = o.tile_mean && o.want_tile_mean[h];
    std::vector<double> mass(means ? p.rows * key_tiles : 0, 0.0);
    for (int64_t i = 0; i < a.seq_len; ++i) {
      visible_keys(a, p, p.heads[h], i, keys, blocks);
      attend_row(a, p, h, i, keys, blocks, terms, row);
      write_row(a, o, h, i, row);
      if (!means || !(row.sum > 0)) continue;
      const int64_t tile_row = i / p.q_tile, valid = least(p.q_tile, a.seq_len - tile_row * p.q_tile);
      for (size_t j = 0; j < keys.size(); ++j)
        mass[tile_row * key_tiles + keys[j] / p.k_tile] += std::exp(terms[j].logit - row.max) / row.sum / valid;
    }
    if (!means) continue;
    for (size_t j = 0; j < mass.size(); ++j) o.tile_mean[slot * p.rows * key_tiles + j] = float(mass[j]);
    ++slot;
  }
  return {};
} catch (const std::bad_alloc&) {
  return {Status::out_of_memory, "no memory for the reference's scratch rows"};
}

}  // namespace prefill::kernels
