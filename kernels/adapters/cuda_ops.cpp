// Selection steps with kernels of their own, behind core/device_ops.h.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/device_ops.h"
#include "kernels/adapters/cuda_tensors.h"
#include "kernels/selection.h"

namespace prefill {
namespace {

using adapters::half;
using adapters::half_dtype;
using adapters::known;
using adapters::stream_of;

at::Tensor true_columns(const at::Tensor& mask, const at::Tensor& ptr, const at::Tensor& values) {
  const c10::cuda::CUDAGuard guard(mask.device());
  const int64_t patterns = mask.size(0), rows = mask.size(1), cols = mask.size(2);
  const at::Tensor idx = at::empty({patterns, std::max<int64_t>(1, rows * cols)}, ptr.options());
  if (patterns * rows * cols == 0) return idx;
  const at::Tensor given = values.defined() ? values.contiguous() : at::Tensor();
  adapters::raise_on(
      kernels::mask_columns_cuda(reinterpret_cast<const uint8_t*>(mask.const_data_ptr<bool>()), int(patterns), rows, cols,
                                 ptr.const_data_ptr<int32_t>(), ptr.stride(0),
                                 given.defined() ? given.const_data_ptr<int32_t>() : nullptr, idx.data_ptr<int32_t>(),
                                 idx.stride(0), stream_of(mask)),
      "cuda");
  return idx;
}

DeviceOps::SlashLists cover_slashes(const at::Tensor& columns, const at::Tensor& counts, const at::Tensor& distances,
                                    int64_t q_tile, int64_t tile) {
  const c10::cuda::CUDAGuard guard(distances.device());
  const int64_t heads = distances.size(0), n = distances.size(1), rows = (n + q_tile - 1) / q_tile;
  if (n > kernels::slash_cover_most_tokens()) return {};
  const at::Tensor far = distances.contiguous();
  const at::Tensor offsets = at::empty({heads, n / tile + 2}, counts.options()), found = at::empty({heads}, counts.options()),
                   covered = at::empty({heads, n}, distances.options());
  kernels::SlashCoverArgs a{};
  a.columns = columns.const_data_ptr<int32_t>(), a.column_stride = columns.stride(0);
  a.column_counts = counts.const_data_ptr<int32_t>(), a.count_stride = counts.stride(0);
  a.distances = reinterpret_cast<const uint8_t*>(far.const_data_ptr<bool>());
  a.heads = heads, a.n = n, a.q_tile = int(q_tile), a.tile = int(tile);
  a.offsets = offsets.data_ptr<int32_t>(), a.offset_counts = found.data_ptr<int32_t>();
  a.covered = reinterpret_cast<uint8_t*>(covered.data_ptr<bool>());
  DeviceOps::SlashLists out;
  const at::Tensor tiles = at::empty({heads, rows + 1}, counts.options()), singles = at::empty_like(tiles);
  if (!known(kernels::slash_cover_counts_cuda(a, tiles.data_ptr<int32_t>(), singles.data_ptr<int32_t>(), stream_of(far))))
    return {};
  out.tile_ptr = tiles.cumsum(1, at::kInt), out.col_ptr = singles.cumsum(1, at::kInt);
  // row r: at most (r * q_tile) / tile tiles before its own, every column and what one tile has too little
  const int64_t own = (q_tile + tile - 1) / tile, before = rows * (rows - 1) / 2 * q_tile / tile;
  out.tile_idx = at::empty({heads, before + rows * own}, counts.options());
  out.col_idx = at::empty({heads, rows * (columns.size(1) + tile)}, counts.options());
  adapters::raise_on(kernels::slash_cover_lists_cuda(a, out.tile_ptr.const_data_ptr<int32_t>(), out.col_ptr.const_data_ptr<int32_t>(),
                                                     out.tile_idx.data_ptr<int32_t>(), out.tile_idx.stride(0),
                                                     out.col_idx.data_ptr<int32_t>(), out.col_idx.stride(0), stream_of(far)),
                     "cuda");
  return out;
}

at::Tensor tile_energy(const at::Tensor& q, const at::Tensor& kbar, const DeviceOps::Energy& how) {
  const int64_t n = q.size(1), cols = (n + how.k_tile - 1) / how.k_tile, group = q.size(0) / kbar.size(0);
  if (!half(q) || kbar.scalar_type() != q.scalar_type() || kbar.size(1) != cols || q.stride(2) != 1) return {};
  const c10::cuda::CUDAGuard guard(q.device());
  const at::Tensor means = kbar.contiguous();
  const at::Tensor energy = at::empty({how.per_kv_head ? kbar.size(0) : q.size(0), (n + how.q_tile - 1) / how.q_tile, cols},
                                      q.options().dtype(at::kFloat));
  const bool done = known(kernels::tile_energy_cuda(
      q.const_data_ptr(), means.const_data_ptr(), half_dtype(q), int(q.size(0)), int(q.size(0) / group), n, int(q.size(2)),
      q.stride(0), q.stride(1), float(how.scale), int(how.q_tile), int(how.k_tile), how.first_token, how.per_kv_head,
      how.padded_rows, energy.data_ptr<float>(), stream_of(q)));
  if (!done) return {};
  return energy;
}

at::Tensor stripe_hits(const at::Tensor& qbar, const at::Tensor& bar, const at::Tensor& k, const DeviceOps::Stripes& how) {
  const int64_t n = k.size(1), all = (n + how.span - 1) / how.span;
  if (!half(k) || k.stride(2) != 1 || qbar.scalar_type() != at::kFloat) return {};
  const c10::cuda::CUDAGuard guard(k.device());
  const at::Tensor queries = qbar.contiguous(), bars = bar.contiguous();
  const at::Tensor hits = at::zeros({qbar.size(0), all, n}, k.options().dtype(at::kBool));
  kernels::StripeArgs a{};
  a.qbar = queries.const_data_ptr<float>(), a.bar = bars.const_data_ptr<float>(), a.k = k.const_data_ptr();
  a.dtype = half_dtype(k), a.q_heads = int(qbar.size(0)), a.kv_heads = int(k.size(0)), a.dim = int(k.size(2));
  a.blocks = int(qbar.size(1)), a.step = int(how.step), a.groups = int(how.groups), a.all_groups = int(all);
  a.n = n, a.k_head_stride = k.stride(0), a.k_row_stride = k.stride(1);
  a.init = how.init, a.local_groups = how.local, a.span = how.span, a.scale = float(how.scale);
  a.hits = reinterpret_cast<uint8_t*>(hits.data_ptr<bool>());
  if (!known(kernels::stripe_hits_cuda(a, stream_of(k)))) return {};
  return hits;
}

/// A broadcasting bool tensor as contiguous [1 or H, R, C].
at::Tensor planes(const at::Tensor& x, const at::Tensor& scores) {
  at::Tensor y = x.dim() == 2 ? x.unsqueeze(0) : x;
  return y.expand({y.size(0), scores.size(1), scores.size(2)}).contiguous();
}

at::Tensor select_tiles(const at::Tensor& scores, const at::Tensor& candidates, const at::Tensor& forced,
                        const at::Tensor& shares, const at::Tensor& counts) {
  if (scores.scalar_type() != at::kFloat || scores.dim() != 3 || scores.numel() == 0) return {};
  const c10::cuda::CUDAGuard guard(scores.device());
  const at::Tensor x = scores.contiguous(), allowed = planes(candidates, scores);
  const at::Tensor first = forced.defined() ? planes(forced, scores) : at::Tensor();
  const at::Tensor mask = at::empty(scores.sizes(), scores.options().dtype(at::kBool));
  kernels::SelectArgs a{};
  a.scores = x.const_data_ptr<float>();
  a.candidates = reinterpret_cast<const uint8_t*>(allowed.const_data_ptr<bool>());
  a.candidate_heads = allowed.size(0);
  if (first.defined()) {
    a.forced = reinterpret_cast<const uint8_t*>(first.const_data_ptr<bool>());
    a.forced_heads = first.size(0);
  }
  a.heads = x.size(0), a.rows = x.size(1), a.cols = x.size(2);
  at::Tensor budget;
  if (shares.defined()) {
    a.shares = shares.const_data_ptr<double>(), a.share_heads = shares.numel();
  } else {
    budget = counts.to(at::kLong).expand({a.heads, a.rows, 1});
    a.counts = budget.const_data_ptr<int64_t>(), a.count_head_stride = budget.stride(0), a.count_row_stride = budget.stride(1);
  }
  a.mask = reinterpret_cast<uint8_t*>(mask.data_ptr<bool>());
  if (!known(kernels::select_tiles_cuda(a, stream_of(x)))) return {};
  return mask;
}

bool softmax_block_sums(const at::Tensor& scores, double scale, int64_t block, int64_t first_row, int64_t real_rows,
                        const at::Tensor& mass) {
  if (scores.scalar_type() != at::kFloat || !scores.is_contiguous() || mass.stride(2) != 1) return false;
  const c10::cuda::CUDAGuard guard(scores.device());
  kernels::BlockSumArgs a{};
  a.scores = scores.const_data_ptr<float>(), a.scale = float(scale), a.block = int(block);
  a.heads = scores.size(0), a.rows = scores.size(1), a.cols = scores.size(2);
  a.first_row = first_row, a.real_rows = real_rows;
  a.mass = mass.data_ptr<float>(), a.head_stride = mass.stride(0), a.row_stride = mass.stride(1);
  if (!known(kernels::softmax_block_sums_cuda(a, stream_of(scores)))) return false;
  return true;
}

at::Tensor strided_mass(const at::Tensor& q, const at::Tensor& k, const DeviceOps::Strided& how) {
  if (!half(q) || k.scalar_type() != q.scalar_type() || q.stride(2) != 1 || k.stride(2) != 1) return {};
  const c10::cuda::CUDAGuard guard(q.device());
  kernels::StridedArgs a{};
  a.q = q.const_data_ptr(), a.k = k.const_data_ptr(), a.dtype = half_dtype(q);
  a.q_heads = int(q.size(0)), a.kv_heads = int(k.size(0)), a.dim = int(q.size(2)), a.seq_len = q.size(1);
  a.q_head_stride = q.stride(0), a.q_row_stride = q.stride(1), a.k_head_stride = k.stride(0),
  a.k_row_stride = k.stride(1);
  a.stride = int(how.stride), a.block = int(how.block), a.key_order = how.key_order.data();
  a.scale = float(how.scale), a.rounded = how.rounded;
  const size_t bytes = kernels::strided_mass_cuda_workspace(a);
  if (bytes == 0) return {};
  const at::Tensor scratch = at::empty({int64_t(bytes)}, q.options().dtype(at::kByte));
  const int64_t blocks = (a.seq_len + how.block - 1) / how.block;
  const at::Tensor mass = at::empty({q.size(0), blocks, blocks}, q.options().dtype(at::kFloat));
  a.mass = mass.data_ptr<float>();
  adapters::raise_on(kernels::strided_mass_cuda(a, scratch.mutable_data_ptr(), stream_of(q)), "cuda");
  return mass;
}

at::Tensor count_for_mass(const at::Tensor& x, double mass) {
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor rows = x.to(at::kFloat).contiguous(), counts = at::empty({x.size(0)}, x.options().dtype(at::kLong));
  adapters::raise_on(kernels::mass_count_cuda(rows.const_data_ptr<float>(), x.size(0), x.size(1), float(mass),
                                              counts.data_ptr<int64_t>(), stream_of(x)),
                     "cuda");
  return counts;
}

const bool registered = [] {
  DeviceOps& ops = cuda_ops();  // another file adds its own
  ops.true_columns = true_columns, ops.tile_energy = tile_energy, ops.stripe_hits = stripe_hits;
  ops.select_tiles = select_tiles, ops.count_for_mass = count_for_mass;
  ops.cover_slashes = cover_slashes;
  ops.softmax_block_sums = softmax_block_sums, ops.strided_mass = strided_mass;
  return true;
}();

}  // namespace
}  // namespace prefill
