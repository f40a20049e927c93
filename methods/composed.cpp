// Any estimator, any selector, any granularity, from YAML: ablations without code, and a place to see which
// part of a published method carries it.
#include <ATen/ATen.h>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"
#include "methods/parts/tile_grid.h"

namespace prefill {
namespace {

struct ComposedParams {
  std::string estimator = "block_mean", selector = "top_p", heads = "query";
  int q_tile = 128, k_tile = 128;
  double p = 0.9, alpha = 0.05, threshold = 0.005;
  int64_t k = 16, sink = 1, local = 1, last = 0, tail = 64;
  int stride = 16;
  template <class V>
  void fields(V& v) {
    v("estimator", estimator, one_of({"block_mean", "energy", "antidiagonal", "minmax", "tail", "true"}),
      "what a tile scores. block_mean: softmax over mean query . mean key; energy: each query against mean "
      "keys "
      "(FlashPrefill); antidiagonal: strided sums (XAttention); minmax: mean query against per-channel "
      "extremes (Quest); "
      "tail: what the last queries give its keys, the same for every row; true: its real attention (a "
      "bound)");
    v("selector", selector, one_of({"top_p", "top_k", "max_ratio", "above"}),
      "which tiles of a row are kept: a share `p` of its score; the `k` best; those of at least `alpha` "
      "times its best; "
      "those above `threshold` of its score");
    v("heads", heads, one_of({"query", "kv"}),
      "query: each query head chooses; kv: the heads of a group choose together, by their scores' sum");
    v("q_tile", q_tile, in(16, 512), "queries per tile");
    v("k_tile", k_tile, in(16, 512), "keys per tile");
    v("p", p, in(0, 1), "top_p: share of the row's score; 1: all");
    v("k", k, at_least(1), "top_k: tiles per row, forced ones included");
    v("alpha", alpha, in(0, 1), "max_ratio: fraction of the row's best score");
    v("threshold", threshold, in(0, 1), "above: share of the row's score that a tile must exceed");
    v("sink", sink, at_least(0), "first key tiles that every row keeps");
    v("local", local, at_least(1), "last key tiles that every row keeps, counted from its diagonal");
    v("last", last, at_least(0), "last rows that keep every tile");
    v("tail", tail, in(1, 4096), "tail: last queries that vote");
    v("stride", stride, in(1, 128), "antidiagonal: tokens per group; divides the tile");
  }
  std::string invalid() const {
    if (estimator == "antidiagonal" && q_tile != k_tile) return "antidiagonal scores need square tiles";
    if (estimator == "antidiagonal" && q_tile % stride != 0) return "stride must divide the tile";
    return {};
  }
};

class Composed final : public MethodOf<ComposedParams> {
 public:
  using MethodOf::MethodOf;

  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.q_tile, params.k_tile};
    const at::Device device = c.qkv.q.device();
    const at::Tensor causal = causal_tiles(grid, device);
    at::Tensor scores;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      scores = estimate(c, grid, causal);
      if (params.heads == "kv")
        scores = scores.reshape({c.qkv.kv_heads(), -1, scores.size(1), scores.size(2)}).sum(1);
    }
    at::Tensor mask;
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      const at::Tensor forced = forced_tiles(grid, {params.sink, params.local, params.last}, device);
      if (params.selector == "top_p") mask = select_top_p(scores, {params.p}, causal, forced);
      if (params.selector == "top_k") mask = select_top_k(scores, params.k, causal, forced);
      if (params.selector == "max_ratio") mask = select_max_ratio(scores, params.alpha, causal, forced);
      if (params.selector == "above") {
        const at::Tensor share = scores / scores.sum(-1, true).clamp_min(1e-30);
        mask = select_above(share, params.threshold, causal, forced);
      }
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  /// Scores that are not negative, 0 where a tile is no candidate: [Hq, rows, cols] float32.
  at::Tensor estimate(const LayerContext& c, const TileGrid& grid, const at::Tensor& causal) const {
    const Qkv& a = c.qkv;
    const std::string& kind = params.estimator;
    if (kind == "block_mean")
      return masked_softmax(
          grouped_dot(block_means(a.q, params.q_tile), block_means(a.k, params.k_tile)) * a.scale, causal);
    if (kind == "minmax")
      return masked_softmax(minmax_bound(block_means(a.q, params.q_tile), a.k, params.k_tile) * a.scale,
                            causal);
    if (kind == "energy")
      return tile_energy(a.q, block_means(a.k, params.k_tile), a.scale, grid, {}) * causal;
    if (kind == "antidiagonal") {
      AntidiagonalOptions options;
      options.stride = params.stride;
      return antidiagonal_mass(a.q, a.k, a.scale, params.q_tile, options) * causal;
    }
    if (kind == "tail") {
      const at::Tensor keys = c.backend.tail_sums(a, std::min(params.tail, c.seq_len)).first;
      const at::Tensor tiles = at::constant_pad_nd(keys, {0, grid.cols() * params.k_tile - c.seq_len})
                                   .view({a.q_heads(), 1, grid.cols(), params.k_tile})
                                   .sum(-1);
      return tiles * causal;
    }
    AttentionPlan all = AttentionPlan::uniform(a.q_heads(), {Route::dense, 0});
    all.tiles.q_tile = params.q_tile;
    all.tiles.k_tile = params.k_tile;
    all.want_tile_mean.assign(all.heads.size(), 1);
    return c.backend.attend(a, all).tile_mean;
  }
};

}  // namespace

PREFILL_METHOD(
    Composed,
    {.name = "composed",
     .doc = "any estimator with any selector at any granularity: ablations without code",
     .source =
         "parts of the methods beside it: FlashPrefill (arXiv 2603.06199), XAttention (2503.16428), Quest "
         "(2406.10774), FlexPrefill (2502.20766), recombined",
     .deviations =
         "no published method is reproduced exactly by a recipe; use the method of that name for that",
     .cost = "block_mean and minmax: 2*(n/tile)^2*D*Hq FLOP; energy: 2*n^2/tile*D*Hq; antidiagonal: "
             "n^2/stride*D*Hq; tail: "
             "2*tail*n*D*Hq; true: a dense attention; selection sorts each row of n/tile scores",
     .full_budget = R"({"p": 1.0})",
     .knob = "p",
     .knob_values = {0.1, 0.3, 0.5, 0.8, 0.95, 1.0},
     .test_params = R"({"q_tile": 32, "k_tile": 32, "p": 0.6})"})

}  // namespace prefill
