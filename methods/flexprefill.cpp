// FlexPrefill: the last block of queries decides, head by head, whether block means can be trusted (query-aware
// head) or vertical and slash stripes are used, and how many of them reach a share gamma of the attention.
#include <ATen/ATen.h>

#include "core/method.h"
#include "methods/parts/tail.h"
#include "methods/parts/vertical_slash.h"

namespace prefill {
namespace {

struct FlexPrefillParams {
  double gamma = 0.9, tau = 0.1;
  int block_size = 128;
  int64_t min_budget = 1024, max_budget = 0, last_q = 0;
  std::string semantics = "intended";
  template <class V>
  void fields(V& v) {
    v("gamma", gamma, in(0, 1), "share of the attention that the chosen stripes or blocks must reach; 1: all");
    v("tau", tau, in(0, 1), "heads whose block-mean estimate is nearer than this (square root of the Jensen-Shannon "
                            "divergence, at most 0.83) choose blocks query by query; 0: never");
    v("block_size", block_size, in(16, 128), "queries and keys per block: 16, 32, 64 or 128");
    v("min_budget", min_budget, at_least(1), "least tokens for the vertical stripes, and again for the slash stripes; "
                                             "prompts no longer than this are dense");
    v("max_budget", max_budget, at_least(0), "most tokens for the vertical stripes, and again for the slash; 0: no limit");
    v("last_q", last_q, at_least(0), "last queries that vote; 0: block_size, as published");
    v("semantics", semantics, one_of({"released", "intended"}), "rules of the released code, or as they were meant");
  }
  std::string invalid() const {
    if (block_size != 16 && block_size != 32 && block_size != 64 && block_size != 128)
      return "block_size must be 16, 32, 64 or 128";
    if (max_budget > 0 && max_budget < min_budget) return "max_budget is below min_budget";
    return {};
  }
};

struct FlexPrefillState : Method::State {
  int64_t query_aware = 0, dense_layers = 0, layers = 0;
};

class FlexPrefill final : public MethodOf<FlexPrefillParams, FlexPrefillState> {
 public:
  using MethodOf::MethodOf;

  AttentionPlan plan_layer(const LayerContext& c, FlexPrefillState& s) const override {
    const int64_t n = c.seq_len, b = params.block_size, blocks = (n + b - 1) / b;
    const int64_t least = (params.min_budget + b - 1) / b;
    ++s.layers;
    if (n <= std::max(2 * b, least * b)) {
      ++s.dense_layers;
      return AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    }
    TailStats tail;
    at::Tensor key_mean, from_means;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      tail = tail_stats(c, params.last_q > 0 ? params.last_q : b);
      if (params.tau > 0) {
        key_mean = c.backend.pool_mean(c.qkv.k, params.block_size);
        from_means = block_mean_estimate(c, key_mean, tail.rows);
      }
    }
    at::Tensor mask;
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      mask = choose(c, tail, key_mean, from_means, least, blocks, s);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::tiles, 0});
    for (int h = 0; h < c.qkv.q_heads(); ++h) plan.heads[size_t(h)].index = h;
    plan.tiles = tiles_from_mask(mask, params.block_size, params.block_size);
    return plan;
  }

  nlohmann::json facts(const FlexPrefillState& s) const override {
    return {{"query_aware_heads", s.query_aware}, {"dense_layers", s.dense_layers}};
  }

 private:
  bool released() const { return params.semantics == "released"; }

  /// Attention that the mean of the voting queries pays to the mean key of every block: [Hq,nb].
  at::Tensor block_mean_estimate(const LayerContext& c, const at::Tensor& key_mean, int64_t rows) const {
    const int64_t group = c.qkv.q_heads() / c.qkv.kv_heads(), dim = c.qkv.head_dim();
    const at::Tensor q = c.qkv.q.narrow(1, c.seq_len - rows, rows).to(at::kFloat).mean(1) * c.qkv.scale;  // [Hq,D]
    const at::Tensor logits = at::matmul(q.view({-1, group, dim}), key_mean.transpose(1, 2));             // [Hkv,g,nb]
    return logits.flatten(0, 1).softmax(-1);
  }

  /// Blocks to compute: bool [Hq,nb,nb].
  at::Tensor choose(const LayerContext& c, const TailStats& tail, const at::Tensor& key_mean,
                    const at::Tensor& from_means, int64_t least, int64_t blocks, FlexPrefillState& s) const {
    const int b = params.block_size;
    const int64_t most = params.max_budget > 0 ? std::min((params.max_budget + b - 1) / b, blocks) : blocks;
    // The released count divides by 128 whatever the block size is.
    auto stripes = [&](const at::Tensor& x) {
      return count_for_mass(x, params.gamma, released()).div(released() ? 128 : b, "floor").add(1).clamp(
          std::min(least, most), most);
    };
    at::Tensor verticals = stripes(tail.vertical), slashes = stripes(tail.slash);
    at::Tensor vertical = sum_bins(tail.vertical, b), slash = distance_bins(tail.slash, b, released());

    at::Tensor aware;
    if (params.tau > 0) {
      aware = sqrt_js(from_means, vertical, released()).lt(params.tau);  // NaN compares false
      verticals = verticals.masked_fill(aware, std::min(least, most));
      slashes = slashes.masked_fill(aware, std::min(least, most));
    }
    constexpr double kForced = std::numeric_limits<double>::infinity();
    vertical.select(1, 0).fill_(kForced);
    slash.select(1, 0).fill_(kForced);
    at::Tensor mask = stripe_mask(top_counts(vertical, verticals), top_counts(slash, slashes));
    if (params.tau > 0) add_query_aware_blocks(c, key_mean, aware, mask, s);
    return mask;
  }

  /// Query-aware heads: the blocks of the pooled attention map that hold gamma of the whole map's mass, chosen
  /// over all rows at once. nonzero() waits for the device: one synchronisation per layer.
  void add_query_aware_blocks(const LayerContext& c, const at::Tensor& key_mean, const at::Tensor& aware,
                              at::Tensor& mask, FlexPrefillState& s) const {
    const at::Tensor heads = aware.nonzero().view(-1);
    if (heads.numel() == 0) return;
    s.query_aware += heads.numel();
    const int64_t group = c.qkv.q_heads() / c.qkv.kv_heads(), blocks = mask.size(1);
    const at::Tensor q = c.backend.pool_mean(c.qkv.q.index_select(0, heads), params.block_size);
    const at::Tensor k = key_mean.index_select(0, heads.div(group, "floor"));
    const at::Tensor causal = at::ones({blocks, blocks}, mask.options()).tril();
    const at::Tensor map = (at::matmul(q, k.transpose(1, 2)) * c.qkv.scale)
                               .masked_fill(causal.logical_not(), -std::numeric_limits<double>::infinity())
                               .softmax(-1)
                               .flatten(1);
    auto [sorted, order] = map.sort(-1, true);
    const at::Tensor before = sorted.cumsum(-1);
    const double target = params.gamma * double(blocks);
    // Released: the block that crosses the target is left out. Intended: it is needed to reach the target.
    at::Tensor keep = released() ? before.le(target) : (before - sorted).lt(target);
    if (params.gamma >= 1) keep = at::ones_like(keep);
    const at::Tensor chosen = at::zeros_like(keep).scatter(1, order, keep).view({-1, blocks, blocks}) & causal;
    mask.index_put_({heads}, mask.index_select(0, heads) | chosen);
  }
};

}  // namespace

PREFILL_METHOD(
    FlexPrefill,
    {.name = "flexprefill",
     .doc = "per head, vertical and slash stripes or query-aware blocks that reach a share gamma of the attention",
     .source = "Lai et al., arXiv 2502.20766; repository ByteDance-Seed/FlexPrefill. Defaults are those of its model "
               "patch (gamma 0.9, tau 0.1, block 128, min_budget 1024)",
     .deviations =
         "released: as the code, except that logits are scaled and pooled in float32 (there: the model's dtype), "
         "equal scores go to the smaller index, and blocks above the diagonal, which gamma = 1 selects there, are "
         "dropped. intended mends: stripe counts divide by block_size (released: always 128); slash bins start at "
         "distance 0 (released: at the largest distance, so that bins miss the block diagonals when the length is no "
         "multiple of the block); query-aware blocks include the one that crosses gamma (released: left out); exact "
         "zeros give a finite distance (released: NaN, never query-aware)",
     .cost = "2*last_q*n*D*Hq FLOP for the tail, two sorts of n per head, block means of K; query-aware heads add "
             "2*(n/block)^2*D FLOP, a sort of (n/block)^2 and one device synchronisation per layer",
     .full_budget = R"({"gamma": 1.0, "tau": 0.0, "min_budget": 1, "block_size": 32})",
     .knob = "gamma",
     .knob_values = {0.3, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0},
     .test_params = R"({"min_budget": 32, "block_size": 32, "tau": 0.2})"})

}  // namespace prefill
