// SALE: exact attention over sink and local keys gives each query its scale; every other key tile is judged by
// low-bit products: kept when some query would give some key of it more than a small share of that attention.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/method.h"
#include "methods/parts/head_table.h"
#include "methods/parts/scores.h"

namespace prefill {
namespace {

constexpr int kQueries = 64, kKeys = 32;  // asserted in the release

struct SaleParams {
  double tau = 0.004;
  Path thresholds;
  int bits = 4;
  std::string scales = "group";
  int64_t sink = 32, local = 128, dense_below = 1024;
  template <class V>
  void fields(V& v) {
    v("tau", tau, in(0, 1),
      "share of the exact sink and local attention that makes a tile worth keeping; 0: everything. Released example "
      "0.004, calibration starts at 0.008");
    v("thresholds", thresholds, any(), "JSON table of one tau per layer and query head instead, as calibration writes it");
    v("bits", bits, in(0, 8), "precision of the estimate, 2 to 8; 0: unquantised (ablation). Published 4");
    v("scales", scales, one_of({"group", "token"}), "which tokens share a quantisation scale (quant_mode 3 or 2)");
    v("sink", sink, at_least(0), "first keys that are always kept; a multiple of 32");
    v("local", local, at_least(32),
      "last keys that are always kept (local_window); up to 96 more, so that a multiple of 128 lies between. A multiple of 32");
    v("dense_below", dense_below, at_least(0), "prompts up to this length run dense");
  }
  std::string invalid() const {
    if (bits == 1) return "bits must be 0 or at least 2";
    if (sink % kKeys || local % kKeys) return "sink and local must be multiples of 32";
    return "";
  }
};

class Sale final : public MethodOf<SaleParams> {
 public:
  Sale(SaleParams p, MethodEnv e) : MethodOf(std::move(p), std::move(e)) {
    if (!params.thresholds.text.empty())
      table_ = read_head_table(params.thresholds.text, "", env.model.layers, env.model.q_heads, 0, 1);
  }

  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    if (c.seq_len <= params.dense_below) return AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    const TileGrid grid{c.seq_len, kQueries, kKeys};
    at::Tensor share, mask;
    const at::Tensor always = sink_and_local(grid, c.qkv.q.device());
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      share = largest_share(c.qkv, grid, always);
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      std::vector<double> tau = table_ ? table_->layer(c.layer) : std::vector<double>(size_t(c.qkv.q_heads()), params.tau);
      for (double& t : tau) t = t > 0 ? std::log(t) : -kInf;
      const at::Tensor bar = at::tensor(tau, at::kDouble).to(at::kFloat).to(share.device()).view({-1, 1, 1});
      mask = (share > bar) | bar.isinf() | always;
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  /// Bool [rows, cols]: the first tiles, and the last ones so that what lies between is a multiple of 4 tiles.
  at::Tensor sink_and_local(const TileGrid& grid, at::Device device) const {
    const auto ids = at::TensorOptions().dtype(at::kLong).device(device);
    const int64_t sink = params.sink / kKeys;
    at::Tensor row = at::arange(grid.rows(), ids).unsqueeze(1), col = at::arange(grid.cols(), ids).unsqueeze(0);
    at::Tensor visible = ((row + 1) * kQueries).clamp_max(grid.n).add(kKeys - 1).div(kKeys, "floor");
    at::Tensor beyond = (visible - sink).clamp_min(0);
    at::Tensor local = params.local / kKeys + beyond.remainder(4);
    return ((col < sink) | (col >= visible - local)) & (col < visible);
  }

  /// Symmetric quantisation of x [H,N,D] and back. Scales are shared by tokens `members` apart within `span`:
  /// queries r and r+8 of 16, keys (col mod 8)/2 of 32, the fragments of the release's tensor-core tiles.
  at::Tensor quantised(const at::Tensor& x, bool keys) const {
    if (params.bits == 0) return x;
    const double top = double((1 << (params.bits - 1)) - 1);
    const int64_t n = x.size(1), span = keys ? kKeys : 16, padded = (n + span - 1) / span * span;
    at::Tensor size = at::constant_pad_nd(x.abs().amax(-1), {0, padded - n});  // [H, padded]
    if (params.scales == "group") {
      // [.., 4 or 2, 8 or (4, 2)]: the axes that share a scale are reduced and spread again.
      at::Tensor cells = keys ? size.view({x.size(0), -1, 4, 4, 2}) : size.view({x.size(0), -1, 2, 8, 1});
      size = cells.amax({2, 4}, /*keepdim=*/true).expand(cells.sizes()).reshape({x.size(0), padded});
    }
    at::Tensor scale = (size.narrow(1, 0, n) / top).clamp_min(1e-12).unsqueeze(-1);
    return (x / scale).round_().clamp_(-top, top).mul_(scale);
  }

  /// [Hq, rows, cols]: the largest log(exp(s - m) / l) of a tile, s the estimated logits, m and l maximum and sum
  /// of the exact logits over the tiles that are kept anyway; -inf above the diagonal.
  at::Tensor largest_share(const Qkv& x, const TileGrid& grid, const at::Tensor& always) const {
    const int64_t n = grid.n, heads = x.q_heads(), group = heads / x.kv_heads();
    // Subtracting the mean key shifts a query's logits alike, exact and estimated; the mean query's part is kept exact.
    at::Tensor k = x.k.to(at::kFloat), q = x.q.to(at::kFloat);
    k = k - k.mean(1, /*keepdim=*/true);
    const at::Tensor q_mean = q.mean(1, /*keepdim=*/true);
    const at::Tensor k_low = quantised(k, true), q_low = quantised(q - q_mean, false);
    const at::Tensor shift = grouped_dot(q_mean, k) * x.scale;  // [Hq, 1, N]
    const auto ids = q.options().dtype(at::kLong);
    at::Tensor out = at::full({heads, grid.rows(), grid.cols()}, -kInf, q.options());
    in_bands(q.device(), grid.rows() * kQueries, heads, n, kQueries, [&](int64_t first, int64_t tokens) {
      const int64_t rows = tokens / kQueries, real = std::min(tokens, n - first), row = first / kQueries;
      const int64_t cols = std::min(grid.cols(), (first + real + kKeys - 1) / kKeys), keys = std::min(n, cols * kKeys);
      const at::Tensor scale = exact_scale(q, k, x.scale, always, grid, row, rows, real, group);
      at::Tensor s = grouped_dot(q_low.narrow(1, first, real), k_low.narrow(1, 0, keys)).mul_(x.scale);
      s.add_(shift.narrow(2, 0, keys)).sub_(scale);
      at::Tensor i = at::arange(first, first + real, ids).unsqueeze(1), j = at::arange(keys, ids).unsqueeze(0);
      const int64_t diagonal = first / kKeys * kKeys;  // keys before it are visible to the whole band
      s.narrow(2, diagonal, keys - diagonal).masked_fill_((j > i).narrow(1, diagonal, keys - diagonal), -kInf);
      s = at::constant_pad_nd(s, {0, cols * kKeys - keys, 0, tokens - real}, -kInf);
      s = s.view({heads, tokens, cols, kKeys}).amax(3).view({heads, rows, kQueries, cols}).amax(2);
      out.narrow(1, row, rows).narrow(2, 0, cols).copy_(s);
    });
    return out;
  }

  /// m + log l of the band's queries over the tiles of `always`: [Hq, real, 1]. Sink and local tiles of a row are
  /// gathered, so that this costs a few hundred keys per query and not the whole prompt.
  at::Tensor exact_scale(const at::Tensor& q, const at::Tensor& k, double scale, const at::Tensor& always,
                         const TileGrid& grid, int64_t row, int64_t rows, int64_t real, int64_t group) const {
    const int64_t kv = k.size(0), dim = k.size(2), first = row * kQueries;
    const at::Tensor kept = always.narrow(0, row, rows);
    const int64_t width = std::min<int64_t>(grid.cols(), params.sink / kKeys + params.local / kKeys + 3 + kQueries / kKeys);
    // Kept tiles first, in order; what is left over of the width is masked.
    at::Tensor order = kept.logical_not().to(at::kByte).argsort(/*stable=*/true, 1, false).narrow(1, 0, width);
    at::Tensor used = kept.gather(1, order);
    at::Tensor in_tile = at::arange(kKeys, order.options());
    at::Tensor key = (order.unsqueeze(-1) * kKeys + in_tile).view({rows, width * kKeys});
    at::Tensor tile_used = used.unsqueeze(-1).expand({rows, width, kKeys}).reshape({rows, width * kKeys});
    at::Tensor keys = k.index_select(1, key.clamp_max(grid.n - 1).view({-1})).view({kv, rows, width * kKeys, dim});
    at::Tensor queries = at::constant_pad_nd(q.narrow(1, first, real), {0, 0, 0, rows * kQueries - real});
    queries = queries.view({kv, group, rows, kQueries, dim}).transpose(1, 2).reshape({kv * rows, group * kQueries, dim});
    at::Tensor logits = at::bmm(queries, keys.view({kv * rows, width * kKeys, dim}).transpose(1, 2)).mul_(scale);
    logits = logits.view({kv, rows, group, kQueries, width * kKeys});
    at::Tensor pos = at::arange(first, first + rows * kQueries, order.options()).view({rows, 1, kQueries, 1});
    at::Tensor hidden = (key.view({rows, 1, 1, width * kKeys}) > pos) | tile_used.logical_not().view({rows, 1, 1, -1});
    at::Tensor total = logits.masked_fill_(hidden, -kInf).logsumexp({-1});  // [kv, rows, group, queries]
    return total.transpose(1, 2).reshape({kv * group, rows * kQueries, 1}).narrow(1, 0, real);
  }

  std::optional<HeadTable> table_;
};

}  // namespace

PREFILL_METHOD(
    Sale,
    {.name = "sale",
     .doc = "SALE-style: low-bit products of all tiles, kept relative to the exact sink and local attention",
     .source = "SALE (arXiv 2505.24179), github.com/BirdChristopher/SALE",
     .deviations = "The low-bit products are simulated by quantising, dequantising and a float32 product. The two-pass "
                   "rule only (what the released scripts run). The computation pass is the plan's attention, not INT8.",
     .cost = "n^2*D low-bit operations per query head, half of the dense FLOP, at INT4 rate in the source. Simulated in "
             "float32 on a CPU this is above 25 % of dense attention and always will be: use it there for accuracy only",
     .full_budget = R"({"tau": 0})",
     .knob = "tau",
     .knob_values = {1, 0.1, 0.02, 0.004, 0.0005, 0},
     .test_params = R"({"dense_below": 0})"})

}  // namespace prefill
