#include "kernels/adapters/views.h"

#include <ATen/ATen.h>

namespace prefill::adapters {
namespace {

bool is_matrix(const at::Tensor& t, at::ScalarType type, int64_t rows, int64_t least_cols) {
  return t.defined() && t.dim() == 2 && t.scalar_type() == type && t.size(0) >= rows && t.size(1) >= least_cols &&
         (t.size(1) <= 1 || t.stride(1) == 1);
}

}  // namespace

std::string wrong_with(const Qkv& a, at::DeviceType device) {
  for (const auto& [name, t] : {std::pair{"q", &a.q}, {"k", &a.k}, {"v", &a.v}}) {
    if (!t->defined() || t->dim() != 3) return str(name, " must have three dimensions [heads, tokens, head_dim]");
    if (t->device().type() != device)
      return str(name, " is on ", t->device().str(), ", this backend computes on ", at::Device(device).str());
    if (t->numel() == 0) return str(name, " is empty");
    if (t->scalar_type() != a.q.scalar_type()) return "q, k and v must have one dtype";
    if (t->size(2) > 1 && t->stride(2) != 1) return str(name, ": the innermost stride must be 1");
  }
  const auto type = a.q.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf)
    return str("dtype ", at::toString(type), " (float32, bfloat16 and float16 are computed)");
  if (a.k.sizes() != a.v.sizes()) return "k and v must have one shape";
  if (a.k.size(1) != a.q.size(1) || a.k.size(2) != a.q.size(2)) return "q and k differ in tokens or head_dim";
  if (a.q.size(0) % a.k.size(0))
    return str(a.q.size(0), " query heads are no multiple of ", a.k.size(0), " key/value heads");
  return "";
}

std::string wrong_with(const AttentionPlan& p, const Qkv& a) {
  const int64_t n = a.seq_len(), hq = a.q_heads();
  if (int64_t(p.heads.size()) != hq) return str("the plan routes ", p.heads.size(), " heads, there are ", hq);
  const bool means = !p.want_tile_mean.empty();
  if (means && int64_t(p.want_tile_mean.size()) != hq) return "want_tile_mean must be empty or have one entry a head";
  bool tiles = false;
  for (const Route& r : p.heads) tiles = tiles || r.kind == Route::tiles;
  const TileSet& t = p.tiles;
  if ((tiles || means) && (t.q_tile < 1 || t.k_tile < 1)) return "tile sizes must be at least 1";
  if (tiles) {
    if (t.k_step < 0 || t.k_tile % t.step()) return "k_step must divide k_tile";
    if (!t.aligned() && p.complement) return "a pooled complement needs tiles of an aligned grid";
    const int64_t rows = (n + t.q_tile - 1) / t.q_tile;
    if (!is_matrix(t.tile_ptr, at::kInt, 1, rows + 1) || !is_matrix(t.tile_idx, at::kInt, t.tile_ptr.size(0), 0))
      return str("tile_ptr must be int32 [patterns, ", rows + 1, "] and tile_idx int32 [patterns, capacity]");
    if (t.tile_ptr.device() != a.q.device() || t.tile_idx.device() != a.q.device())
      return str("the tile lists are on ", t.tile_ptr.device().str(), ", q is on ", a.q.device().str());
    if (t.col_ptr.defined()) {
      const int64_t groups = t.col_rows < 1 ? 0 : (rows + t.col_rows - 1) / t.col_rows;
      if (t.col_rows < 1 || !is_matrix(t.col_ptr, at::kInt, t.tile_ptr.size(0), groups + 1) ||
          !is_matrix(t.col_idx, at::kInt, t.tile_ptr.size(0), 0))
        return str("col_ptr must be int32 [patterns, ", groups + 1, "] and col_idx int32 [patterns, capacity]");
      if (t.col_ptr.device() != a.q.device() || t.col_idx.device() != a.q.device())
        return str("the column lists are on ", t.col_ptr.device().str(), ", q is on ", a.q.device().str());
    }
  }
  if (p.resume) {
    const PartialSoftmax& s = *p.resume;
    if (!is_matrix(s.row_max, at::kFloat, hq, n) || !is_matrix(s.row_sum, at::kFloat, hq, n) || !s.acc.defined() ||
        s.acc.scalar_type() != at::kFloat || s.acc.sizes() != a.q.sizes())
      return "resume must hold float32 row_max [Hq,N], row_sum [Hq,N] and acc [Hq,N,D]";
    if (s.acc.device() != a.q.device()) return str("the resumed state is on ", s.acc.device().str());
  }
  if (p.complement) {
    const PooledComplement& c = *p.complement;
    if (c.block < 1 || (tiles && c.block % t.k_tile)) return "the complement's block must be a multiple of k_tile";
    const std::vector<int64_t> want{a.kv_heads(), (n + c.block - 1) / c.block, a.head_dim()};
    for (const at::Tensor* m : {&c.k_mean, &c.v_mean})
      if (!m->defined() || m->sizes() != at::IntArrayRef(want) || m->scalar_type() != a.q.scalar_type() ||
          m->device() != a.q.device())
        return "k_mean and v_mean must be [Hkv, ceil(N/block), D] in the dtype and on the device of q";
  }
  return "";
}

kernels::QkvView view(const Qkv& a) {
  const auto type = a.q.scalar_type();
  return {a.q.data_ptr(), a.k.data_ptr(), a.v.data_ptr(),
          type == at::kFloat ? kernels::Dtype::f32 : type == at::kHalf ? kernels::Dtype::f16 : kernels::Dtype::bf16,
          a.q_heads(),    a.kv_heads(),   a.head_dim(),   a.seq_len(),    a.q.stride(0),
          a.q.stride(1),  a.k.stride(0),  a.k.stride(1),  a.v.stride(0),  a.v.stride(1),
          float(a.scale)};
}

PlanArgs::PlanArgs(const AttentionPlan& p, const Qkv& a) {
  for (const Route& r : p.heads) heads_.push_back({uint8_t(r.kind), r.index});
  for (const Window& w : p.windows) windows_.push_back({w.sink, w.local, w.last});
  view.heads = heads_.data();
  view.windows = windows_.data();
  view.window_count = int(windows_.size());
  const TileSet& t = p.tiles;
  view.q_tile = t.q_tile;
  view.k_tile = t.k_tile;
  view.k_step = t.step();
  view.rows = t.q_tile > 0 ? (a.seq_len() + t.q_tile - 1) / t.q_tile : 0;
  view.col_rows = t.col_rows;
  if (t.tile_ptr.defined()) {
    view.patterns = int(t.tile_ptr.size(0));
    view.tile_ptr = t.tile_ptr.const_data_ptr<int32_t>();
    view.tile_idx = t.tile_idx.const_data_ptr<int32_t>();
    view.tile_ptr_stride = t.tile_ptr.stride(0);
    view.tile_idx_stride = t.tile_idx.stride(0);
    if (t.col_ptr.defined()) {
      view.col_ptr = t.col_ptr.const_data_ptr<int32_t>();
      view.col_idx = t.col_idx.const_data_ptr<int32_t>();
      view.col_ptr_stride = t.col_ptr.stride(0);
      view.col_idx_stride = t.col_idx.stride(0);
    }
  }
  auto keep = [&](const at::Tensor& x) {
    kept_.push_back(x.contiguous());
    return kept_.back().data_ptr();
  };
  if (p.resume) {
    view.resume_max = static_cast<const float*>(keep(p.resume->row_max));
    view.resume_sum = static_cast<const float*>(keep(p.resume->row_sum));
    view.resume_acc = static_cast<const float*>(keep(p.resume->acc));
  }
  if (p.complement) {
    view.pooled_k = keep(p.complement->k_mean);
    view.pooled_v = keep(p.complement->v_mean);
    view.pooled_block = p.complement->block;
  }
}

Outputs::Outputs(const Qkv& a, const AttentionPlan& p, AttendOptions options, Want want) {
  const int64_t hq = a.q_heads(), n = a.seq_len(), dim = a.head_dim();
  const auto f32 = a.q.options().dtype(at::kFloat);
  if (want == result) {
    tensors.out = at::empty({n, hq, dim}, a.q.options()).transpose(0, 1);
    view.out = tensors.out.data_ptr();
    view.out_head_stride = tensors.out.stride(0);
    view.out_row_stride = tensors.out.stride(1);
    if (options.lse) {
      tensors.lse = at::empty({hq, n}, f32);
      view.lse = tensors.lse.data_ptr<float>();
    }
    int64_t wanted = 0;
    for (uint8_t w : p.want_tile_mean) wanted += w != 0;
    if (wanted) {
      tensors.tile_mean =
          at::empty({wanted, (n + p.tiles.q_tile - 1) / p.tiles.q_tile, (n + p.tiles.k_tile - 1) / p.tiles.k_tile}, f32);
      view.tile_mean = tensors.tile_mean.data_ptr<float>();
      view.want_tile_mean = p.want_tile_mean.data();
    }
    return;
  }
  softmax.row_max = at::empty({hq, n}, f32);
  softmax.row_sum = at::empty({hq, n}, f32);
  softmax.acc = at::empty({hq, n, dim}, f32);
  softmax.covered = std::make_shared<const AttentionPlan>(p);
  view.state_max = softmax.row_max.data_ptr<float>();
  view.state_sum = softmax.row_sum.data_ptr<float>();
  view.state_acc = softmax.acc.data_ptr<float>();
}

void raise_on(const kernels::Result& r, const std::string& who) {
  switch (r.status) {
    case kernels::Status::ok: return;
    case kernels::Status::unsupported: throw Unsupported(who + ": " + r.why);
    case kernels::Status::bad_argument: throw BrokenPlan(who + ": " + r.why);
    case kernels::Status::out_of_memory: throw std::runtime_error(who + ": " + r.why);
    case kernels::Status::device_error: throw DeviceLost(who + ": " + r.why);
  }
}

}  // namespace prefill::adapters
