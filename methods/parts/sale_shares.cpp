#include "methods/parts/sale_shares.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "methods/parts/on_device.h"
#include "methods/parts/scores.h"

namespace prefill {
namespace {

/// Symmetric quantisation of x [H,N,D] and back. Scales are shared by tokens `members` apart within `span`:
/// queries r and r+8 of 16, keys (col mod 8)/2 of 32, the fragments of the release's tensor-core tiles.
at::Tensor quantised(const at::Tensor& x, bool keys, const SaleEstimate& o) {
  if (o.bits == 0) return x;
  const double top = double((1 << (o.bits - 1)) - 1);
  const int64_t n = x.size(1), span = keys ? kSaleKeys : 16, padded = (n + span - 1) / span * span;
  at::Tensor size = at::constant_pad_nd(x.abs().amax(-1), {0, padded - n});  // [H, padded]
  if (o.scales == "group") {
    // [.., 4 or 2, 8 or (4, 2)]: the axes that share a scale are reduced and spread again.
    at::Tensor cells = keys ? size.view({x.size(0), -1, 4, 4, 2}) : size.view({x.size(0), -1, 2, 8, 1});
    size = cells.amax({2, 4}, /*keepdim=*/true).expand(cells.sizes()).reshape({x.size(0), padded});
  }
  at::Tensor scale = (size.narrow(1, 0, n) / top).clamp_min(1e-12).unsqueeze(-1);
  return (x / scale).round_().clamp_(-top, top).mul_(scale);
}

/// m + log l of the band's queries over the tiles of `always`: [Hq, real, 1]. Sink and local tiles of a row
/// are gathered, so that this costs a few hundred keys per query and not the whole prompt.
at::Tensor exact_scale(const at::Tensor& q, const at::Tensor& k, double scale, const at::Tensor& always,
                       const TileGrid& grid, const SaleEstimate& o, int64_t row, int64_t rows, int64_t real,
                       int64_t group) {
  const int64_t kv = k.size(0), dim = k.size(2), first = row * kSaleQueries;
  const at::Tensor kept = always.narrow(0, row, rows);
  const int64_t width =
      std::min<int64_t>(grid.cols(), o.sink / kSaleKeys + o.local / kSaleKeys + 3 + kSaleQueries / kSaleKeys);
  // Kept tiles first, in order; what is left over of the width is masked.
  at::Tensor order = kept.logical_not().to(at::kByte).argsort(/*stable=*/true, 1, false).narrow(1, 0, width);
  at::Tensor used = kept.gather(1, order);
  at::Tensor in_tile = at::arange(kSaleKeys, order.options());
  at::Tensor key = (order.unsqueeze(-1) * kSaleKeys + in_tile).view({rows, width * kSaleKeys});
  at::Tensor tile_used =
      used.unsqueeze(-1).expand({rows, width, kSaleKeys}).reshape({rows, width * kSaleKeys});
  at::Tensor keys =
      k.index_select(1, key.clamp_max(grid.n - 1).view({-1})).view({kv, rows, width * kSaleKeys, dim});
  at::Tensor queries = at::constant_pad_nd(q.narrow(1, first, real), {0, 0, 0, rows * kSaleQueries - real});
  queries = queries.view({kv, group, rows, kSaleQueries, dim})
                .transpose(1, 2)
                .reshape({kv * rows, group * kSaleQueries, dim});
  at::Tensor logits =
      at::bmm(queries, keys.view({kv * rows, width * kSaleKeys, dim}).transpose(1, 2)).mul_(scale);
  logits = logits.view({kv, rows, group, kSaleQueries, width * kSaleKeys});
  at::Tensor pos =
      at::arange(first, first + rows * kSaleQueries, order.options()).view({rows, 1, kSaleQueries, 1});
  at::Tensor hidden =
      (key.view({rows, 1, 1, width * kSaleKeys}) > pos) | tile_used.logical_not().view({rows, 1, 1, -1});
  at::Tensor total = logits.masked_fill_(hidden, -kInf).logsumexp({-1});  // [kv, rows, group, queries]
  return total.transpose(1, 2).reshape({kv * group, rows * kSaleQueries, 1}).narrow(1, 0, real);
}

}  // namespace

at::Tensor sale_always(const TileGrid& grid, const SaleEstimate& o, at::Device device) {
  const auto ids = at::TensorOptions().dtype(at::kLong).device(device);
  const int64_t sink = o.sink / kSaleKeys;
  at::Tensor row = at::arange(grid.rows(), ids).unsqueeze(1), col = at::arange(grid.cols(), ids).unsqueeze(0);
  at::Tensor visible =
      ((row + 1) * kSaleQueries).clamp_max(grid.n).add(kSaleKeys - 1).div(kSaleKeys, "floor");
  at::Tensor beyond = (visible - sink).clamp_min(0);
  at::Tensor local = o.local / kSaleKeys + beyond.remainder(4);
  return ((col < sink) | (col >= visible - local)) & (col < visible);
}

at::Tensor sale_shares(const Qkv& x, const TileGrid& grid, const at::Tensor& always, const SaleEstimate& o) {
  const int64_t n = grid.n, heads = x.q_heads(), group = heads / x.kv_heads();
  // Subtracting the mean key shifts a query's logits alike, exact and estimated; the mean query's part is
  // kept exact.
  at::Tensor k = x.k.to(at::kFloat), q = x.q.to(at::kFloat);
  k = k - k.mean(1, /*keepdim=*/true);
  const at::Tensor q_mean = q.mean(1, /*keepdim=*/true);
  const at::Tensor k_low = quantised(k, true, o), q_low = quantised(q - q_mean, false, o);
  const at::Tensor shift = grouped_dot(q_mean, k) * x.scale;  // [Hq, 1, N]
  const auto ids = q.options().dtype(at::kLong);
  at::Tensor out = at::full({heads, grid.rows(), grid.cols()}, -kInf, q.options());
  in_bands(
      q.device(), grid.rows() * kSaleQueries, heads, n, kSaleQueries, [&](int64_t first, int64_t tokens) {
        const int64_t rows = tokens / kSaleQueries, real = std::min(tokens, n - first),
                      row = first / kSaleQueries;
        const int64_t cols = std::min(grid.cols(), (first + real + kSaleKeys - 1) / kSaleKeys),
                      keys = std::min(n, cols * kSaleKeys);
        const at::Tensor scale = exact_scale(q, k, x.scale, always, grid, o, row, rows, real, group);
        at::Tensor s = grouped_dot(q_low.narrow(1, first, real), k_low.narrow(1, 0, keys)).mul_(x.scale);
        s.add_(shift.narrow(2, 0, keys)).sub_(scale);
        at::Tensor i = at::arange(first, first + real, ids).unsqueeze(1),
                   j = at::arange(keys, ids).unsqueeze(0);
        const int64_t diagonal =
            first / kSaleKeys * kSaleKeys;  // keys before it are visible to the whole band
        s.narrow(2, diagonal, keys - diagonal)
            .masked_fill_((j > i).narrow(1, diagonal, keys - diagonal), -kInf);
        s = at::constant_pad_nd(s, {0, cols * kSaleKeys - keys, 0, tokens - real}, -kInf);
        s = s.view({heads, tokens, cols, kSaleKeys}).amax(3).view({heads, rows, kSaleQueries, cols}).amax(2);
        out.narrow(1, row, rows).narrow(2, 0, cols).copy_(s);
      });
  return out;
}

at::Tensor sale_mask(const at::Tensor& shares, const at::Tensor& always, const std::vector<double>& tau) {
  std::vector<double> bars;
  for (double t : tau) bars.push_back(t > 0 ? std::log(t) : -kInf);
  const at::Tensor bar = on_device(bars, shares.device()).to(at::kFloat).view({-1, 1, 1});
  return (shares > bar) | bar.isinf() | always;
}

}  // namespace prefill
