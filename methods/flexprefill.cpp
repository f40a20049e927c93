// FlexPrefill: the last block of queries decides, head by head, whether block means can be trusted
// (query-aware head) or vertical and slash stripes are used, and how many of them reach a share gamma of the
// attention.
#include <ATen/ATen.h>

#include "core/method.h"
#include "methods/parts/stripes.h"
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
    v("gamma", gamma, in(0, 1),
      "share of the attention that the chosen stripes or blocks must reach; 1: all");
    v("tau", tau, in(0, 1),
      "heads whose block-mean estimate is nearer than this (square root of the Jensen-Shannon "
      "divergence, at most 0.83) choose blocks query by query; 0: never");
    v("block_size", block_size, in(16, 128), "queries and keys per block: 16, 32, 64 or 128");
    v("min_budget", min_budget, at_least(1),
      "least tokens for the vertical stripes, and again for the slash stripes; "
      "prompts no longer than this are dense");
    v("max_budget", max_budget, at_least(0),
      "most tokens for the vertical stripes, and again for the slash; 0: no limit");
    v("last_q", last_q, at_least(0), "last queries that vote; 0: block_size, as published");
    v("semantics", semantics, one_of({"released", "intended"}),
      "rules of the released code, or as they were meant");
  }
  std::string invalid() const { return wrong_sizes(block_size, min_budget, max_budget); }
};

struct FlexPrefillState : Method::State {
  at::Tensor query_aware;  ///< heads so far, int64 on the prompt's device; undefined: none was asked
  int64_t dense_layers = 0;
};

class FlexPrefill final : public MethodOf<FlexPrefillParams, FlexPrefillState> {
 public:
  using MethodOf::MethodOf;

  AttentionPlan plan_layer(const LayerContext& c, FlexPrefillState& s) const override {
    const int64_t n = c.seq_len, b = params.block_size;
    const int64_t least = (params.min_budget + b - 1) / b;
    if (n <= std::max(2 * b, least * b)) {
      ++s.dense_layers;
      return AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    }
    StripeRules rules;
    rules.mass = params.gamma;
    rules.block = params.block_size;
    rules.count_unit = released() ? 128 : params.block_size;  // released: 128 whatever the block size
    rules.tau = params.tau;
    rules.released = released();
    set_budgets(rules, params.min_budget, params.max_budget, n);

    TailStats tail;
    at::Tensor key_mean, from_means;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      tail = tail_stats(c, params.last_q > 0 ? params.last_q : b);
      if (params.tau > 0) {
        key_mean = c.backend.pool_mean(c.qkv.k, params.block_size);
        from_means = block_mean_estimate(c.qkv, key_mean, tail.rows);
      }
    }
    at::Tensor mask;
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      const StripeChoice choice = choose_stripes(tail, from_means, rules);
      const StripeSets sets = take_stripes(choice);
      mask = stripe_mask(sets.vertical, sets.slash);
      if (choice.aware.defined()) {
        const at::Tensor heads = choice.aware.sum();
        s.query_aware = s.query_aware.defined() ? s.query_aware + heads : heads;
        add_query_aware_blocks(c, key_mean, choice.aware, rules, mask);
      }
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::tiles, 0});
    for (int h = 0; h < c.qkv.q_heads(); ++h) plan.heads[size_t(h)].index = h;
    plan.tiles = tiles_from_mask(mask, params.block_size, params.block_size);
    return plan;
  }

  nlohmann::json facts(const FlexPrefillState& s) const override {
    return {{"query_aware_heads", s.query_aware.defined() ? s.query_aware.item<int64_t>() : 0},
            {"dense_layers", s.dense_layers}};
  }

 private:
  bool released() const { return params.semantics == "released"; }
};

}  // namespace

PREFILL_METHOD(
    FlexPrefill,
    {.name = "flexprefill",
     .doc = "per head, vertical and slash stripes or query-aware blocks that reach a share gamma of the "
            "attention",
     .source = "Lai et al., arXiv 2502.20766; repository ByteDance-Seed/FlexPrefill. Defaults are those of "
               "its model "
               "patch (gamma 0.9, tau 0.1, block 128, min_budget 1024)",
     .deviations = "released: as the code, except that logits are scaled and pooled in float32 (there: the "
                   "model's dtype), "
                   "equal scores go to the smaller index, and blocks above the diagonal, which gamma = 1 "
                   "selects there, are "
                   "dropped. intended mends: stripe counts divide by block_size (released: always 128); "
                   "slash bins start at "
                   "distance 0 (released: at the largest distance, so that bins miss the block diagonals "
                   "when the length is no "
                   "multiple of the block); query-aware blocks include the one that crosses gamma (released: "
                   "left out); exact "
                   "zeros give a finite distance (released: NaN, never query-aware)",
     .cost = "2*last_q*n*D*Hq FLOP for the tail, two sorts of n per head, block means of K; query-aware "
             "heads add "
             "2*(n/block)^2*D FLOP and a sort (on a GPU a selection, without the host) of (n/block)^2",
     .full_budget = R"({"gamma": 1.0, "tau": 0.0, "min_budget": 1, "block_size": 32})",
     .knob = "gamma",
     .knob_values = {0.3, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0},
     .test_params = R"({"min_budget": 32, "block_size": 32, "tau": 0.2})"})

}  // namespace prefill
