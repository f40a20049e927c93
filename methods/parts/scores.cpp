#include "methods/parts/scores.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/base/error.h"
#include "core/device_ops.h"
#include "methods/parts/on_device.h"

namespace prefill {
namespace {

/// Whole and partial blocks of x [H,N,D] as [H,nb,block,D] and [H,rest,D] views.
struct Blocks {
  at::Tensor whole, rest;
};
Blocks blocks_of(const at::Tensor& x, int64_t block) {
  const int64_t full = x.size(1) / block * block;
  return {x.narrow(1, 0, full).unflatten(1, {full / block, block}), x.narrow(1, full, x.size(1) - full)};
}

/// x [H,N,D] with zero rows up to `length`, contiguous.
at::Tensor zero_padded(const at::Tensor& x, int64_t length, at::ScalarType dtype = at::kFloat) {
  if (x.size(1) == length) return x.to(dtype).contiguous();
  at::Tensor out = at::zeros({x.size(0), length, x.size(2)}, x.options().dtype(dtype));
  out.narrow(1, 0, x.size(1)).copy_(x);
  return out;
}

}  // namespace

at::Tensor block_means(const at::Tensor& x, int64_t block, TailMean tail) {
  const Blocks b = blocks_of(x, block);
  at::Tensor means = b.whole.mean(2, /*keepdim=*/false, at::kFloat);
  if (b.rest.size(1) == 0) return means;
  const double count = double(tail == TailMean::over_count ? b.rest.size(1) : block);
  return at::cat({means, b.rest.sum(1, /*keepdim=*/true, at::kFloat) / count}, 1);
}

at::Tensor rounded_to(const at::Tensor& x, at::ScalarType dtype) { return x.to(dtype).to(at::kFloat); }

at::Tensor grouped_dot(const at::Tensor& a, const at::Tensor& b) {
  const int64_t rows = a.size(1), group = a.size(0) / b.size(0);
  at::Tensor folded = a.reshape({b.size(0), group * rows, a.size(2)});
  return at::bmm(folded, b.transpose(1, 2)).view({a.size(0), rows, b.size(1)});
}

at::Tensor grouped_dot_16(const at::Tensor& a, const at::Tensor& b) {
  const int64_t rows = a.size(1), group = a.size(0) / b.size(0);
  at::Tensor folded = a.reshape({b.size(0), group * rows, a.size(2)});
  return at::bmm(folded, b.transpose(1, 2), at::kFloat).view({a.size(0), rows, b.size(1)});
}

void in_bands(at::Device device, int64_t rows, int64_t heads, int64_t cols, int64_t unit,
              const std::function<void(int64_t, int64_t)>& step) {
  const int64_t elements = int64_t(1) << (device.is_cpu() ? 20 : 26);
  const int64_t band = std::max<int64_t>(elements / std::max<int64_t>(heads * cols * unit, 1), 1) * unit;
  for (int64_t first = 0; first < rows; first += band) step(first, std::min(band, rows - first));
}

at::Tensor masked_softmax(const at::Tensor& logits, const at::Tensor& candidates) {
  at::Tensor outside = candidates.logical_not();
  return logits.masked_fill(outside, -kInf).softmax(-1).masked_fill_(outside, 0);
}

at::Tensor tile_energy(const at::Tensor& q, const at::Tensor& means, double scale, const TileGrid& grid,
                       EnergyOptions how) {
  if (q.is_cuda() && cuda_ops().tile_energy && !how.row_softmax) {
    const at::Tensor energy = cuda_ops().tile_energy(
        q, means,
        {scale, grid.q_tile, grid.k_tile, how.sees == Sees::first_token, how.per_kv_head, how.padded_rows});
    if (energy.defined()) return energy;
  }
  const at::Tensor kbar = means.to(at::kFloat);
  const int64_t heads = q.size(0), group = heads / kbar.size(0);
  const int64_t fold = how.per_kv_head ? group : 1, out_heads = heads / fold;
  at::Tensor energy = at::zeros({out_heads, grid.rows(), grid.cols()}, kbar.options());
  const auto ids = kbar.options().dtype(at::kLong);
  in_bands(q.device(), grid.rows() * grid.q_tile, heads, grid.cols(), grid.q_tile,
           [&](int64_t first, int64_t tokens) {
             const int64_t rows = tokens / grid.q_tile, real = std::min(tokens, grid.n - first);
             const int64_t cols = (first + real - 1) / grid.k_tile + 1;
             at::Tensor queries = zero_padded(q.narrow(1, first, real), tokens);
             at::Tensor logits = grouped_dot(queries, kbar.narrow(1, 0, cols)).mul_(scale);

             at::Tensor pos = at::arange(first, first + tokens, ids).unsqueeze(1);
             at::Tensor seen_from = at::arange(cols, ids).unsqueeze(0) * grid.k_tile;
             if (how.sees == Sees::last_token) seen_from = seen_from + (grid.k_tile - 1);
             at::Tensor hidden = pos < seen_from;
             if (!how.padded_rows) hidden = hidden | (pos >= grid.n);
             if (how.row_softmax)
               logits = masked_softmax(logits, hidden.logical_not());
             else
               logits.masked_fill_(hidden, -kInf);

             logits = logits.view({out_heads, fold, rows, grid.q_tile, cols});
             at::Tensor into = energy.narrow(1, first / grid.q_tile, rows).narrow(2, 0, cols);
             if (how.row_softmax) {
               into.copy_(logits.sum({1, 3}));
               return;
             }
             at::Tensor peak = logits.amax({1, 3, 4}, /*keepdim=*/true);
             peak = peak.masked_fill(peak.isinf(), 0);  // a row that sees no block: all energies 0
             logits.sub_(peak).exp_();
             into.copy_(logits.sum({1, 3}));
           });
  return energy;
}

namespace {

/// The key of a group that each of its queries 0..stride-1 meets. Keys are put in order, not queries: there
/// are fewer heads of them.
std::vector<int64_t> key_order(const AntidiagonalOptions& o) {
  std::vector<int64_t> order(static_cast<size_t>(o.stride));
  std::iota(order.begin(), order.end(), int64_t(0));
  if (o.mode == "random") {  // Fisher-Yates over SplitMix64: the same on every platform
    uint64_t state = o.seed;
    for (size_t i = order.size(); i > 1; --i) {
      uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
      std::swap(order[i - 1], order[size_t((z ^ (z >> 31)) % i)]);
    }
  } else if (o.mode != "diagonal") {
    std::reverse(order.begin(), order.end());
  }
  std::vector<int64_t> key(order.size());  // order says which query meets key i
  for (size_t i = 0; i < order.size(); ++i) key[size_t(order[i])] = int64_t(i);
  return key;
}

/// Keys of a group, [H,G,stride,D]; "double" and "triple" blur each key with its neighbours in the group.
at::Tensor blurred_keys(const at::Tensor& keys, const std::string& mode) {
  if (mode != "double" && mode != "triple") return keys;
  at::Tensor twice = keys + keys.roll(-1, 2);
  return mode == "double" ? twice : twice + twice.roll(1, 2);
}

}  // namespace

void causal_block_sums(at::Tensor scores, double scale, int64_t block, int64_t first_row, int64_t real_rows,
                       at::Tensor into) {
  if (scores.is_cuda() && cuda_ops().softmax_block_sums &&
      cuda_ops().softmax_block_sums(scores, scale, block, first_row, real_rows, into))
    return;
  const int64_t heads = scores.size(0), rows = scores.size(1), cols = scores.size(2), end = first_row + rows;
  const auto ids = scores.options().dtype(at::kLong);
  const at::Tensor row = at::arange(first_row, end, ids).unsqueeze(1);
  scores.mul_(scale)
      .narrow(2, first_row, cols - first_row)
      .masked_fill_(at::arange(first_row, cols, ids).unsqueeze(0) > row,
                    -kInf);  // before first_row all is seen
  at::Tensor probs = scores.softmax(-1);
  if (end > real_rows) probs.mul_(row < real_rows);
  // over rows first: that runs along the memory
  into.copy_(probs.view({heads, rows / block, block, cols})
                 .sum(2)
                 .view({heads, rows / block, cols / block, block})
                 .sum(3));
}

at::Tensor antidiagonal_mass(const at::Tensor& q, const at::Tensor& k, double scale, int64_t block,
                             const AntidiagonalOptions& o) {
  if (block % o.stride != 0) throw Unsupported("the block must be a multiple of the stride");
  const int64_t n = q.size(1), dim = q.size(2), stride = o.stride, heads = q.size(0);
  const int64_t blocks = (n + block - 1) / block, per_block = block / stride, groups = blocks * per_block;
  const int64_t real_groups = (n + stride - 1) / stride;
  auto fold = [&](const at::Tensor& x) { return x.reshape({x.size(0), groups, stride * dim}); };
  // On a GPU 16-bit inputs stay what they are: their products are exact in float32 on the tensor cores.
  const bool narrow =
      q.is_cuda() && q.scalar_type() != at::kFloat && o.mode != "double" && o.mode != "triple";
  const std::vector<int64_t> keys = key_order(o);
  const double divided = scale / double(stride) / o.norm;
  if (narrow && cuda_ops().strided_mass && !o.round_every_step && o.own_chunk == 0 &&
      (o.keep == at::kFloat || o.keep == q.scalar_type())) {
    const at::Tensor mass =
        cuda_ops().strided_mass(q, k, {divided, stride, block, keys, /*rounded=*/o.keep != at::kFloat});
    if (mass.defined()) return o.keep == at::kFloat ? mass : rounded_to(mass, o.keep);
  }
  const at::ScalarType held = narrow ? q.scalar_type() : at::kFloat;
  const at::Tensor order = on_device(keys, q.device());
  const at::Tensor fq = fold(zero_padded(q, blocks * block, held));
  at::Tensor fk = zero_padded(k, blocks * block, held).view({k.size(0), groups, stride, dim});
  fk = fold(blurred_keys(fk, o.mode).index_select(2, order));

  at::Tensor mass = at::zeros({heads, blocks, blocks}, fq.options().dtype(at::kFloat));
  const auto ids = fq.options().dtype(at::kLong);
  const int64_t chunk = o.own_chunk / stride;
  in_bands(q.device(), groups, heads, groups, per_block, [&](int64_t first, int64_t rows) {
    const int64_t end = first + rows;
    at::Tensor logits = narrow ? grouped_dot_16(fq.narrow(1, first, rows), fk.narrow(1, 0, end))
                               : grouped_dot(fq.narrow(1, first, rows), fk.narrow(1, 0, end));
    at::Tensor into = mass.narrow(1, first / per_block, rows / per_block).narrow(2, 0, end / per_block);
    if (!o.round_every_step && chunk == 0) {
      causal_block_sums(rounded_to(logits, o.keep), divided, per_block, first, real_groups, into);
      if (o.keep != at::kFloat) into.copy_(rounded_to(into, o.keep));
      return;
    }
    if (o.round_every_step)
      logits = logits.to(o.keep).div_(1 / scale).div_(double(stride)).div_(o.norm).to(at::kFloat);
    else
      logits = rounded_to(logits, o.keep).mul_(divided);
    const at::Tensor row = at::arange(first, end, ids).unsqueeze(1), col = at::arange(end, ids).unsqueeze(0);
    at::Tensor hidden = col > row;
    if (chunk > 0) hidden = hidden | (col < row.div(chunk, "floor") * chunk);
    at::Tensor probs = logits.masked_fill_(hidden, -kInf).softmax(-1).mul_(row < real_groups);
    probs = probs.view({heads, rows / per_block, per_block, end / per_block, per_block});
    if (o.round_every_step)
      into.copy_(rounded_to(rounded_to(rounded_to(probs, o.keep).sum(4), o.keep).sum(2), o.keep));
    else
      into.copy_(rounded_to(probs.sum({2, 4}), o.keep));
  });
  return mass;
}

at::Tensor minmax_bound(const at::Tensor& qbar, const at::Tensor& k, int64_t block) {
  const Blocks b = blocks_of(k, block);
  std::vector<at::Tensor> low{b.whole.amin(2)}, high{b.whole.amax(2)};
  if (b.rest.size(1) > 0) {
    low.push_back(b.rest.amin(1, /*keepdim=*/true));
    high.push_back(b.rest.amax(1, /*keepdim=*/true));
  }
  at::Tensor lo = at::cat(low, 1).to(at::kFloat), hi = at::cat(high, 1).to(at::kFloat);
  return grouped_dot(qbar.clamp_min(0), hi) + grouped_dot(qbar.clamp_max(0), lo);
}

}  // namespace prefill
