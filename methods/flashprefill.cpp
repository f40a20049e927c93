// FlashPrefill: raw queries against mean-pooled keys, tile energies, keep what reaches a share of the row's
// best.
#include <ATen/ATen.h>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct FlashPrefillParams {
  int block = 128;
  int64_t sink = 2, window = 4, last = 2, min_budget = 0, top_k = 16;
  double alpha = 0.18, top_p = 0.95;
  std::string rule = "max_ratio", score = "energy", sees = "last_token", semantics = "intended";
  bool per_kv_head = false;
  template <class V>
  void fields(V& v) {
    v("alpha", alpha, in(0, 1),
      "keep blocks whose energy is at least alpha times the row's largest. Published: Llama 0.18 (default "
      "here), "
      "Qwen2/2.5 0.08, Qwen3-MoE 0.12; the released class defaults to 0.7");
    v("block", block, in(16, 512), "queries and keys per block");
    v("sink", sink, at_least(0), "first key blocks that are always kept (attention_sink)");
    v("window", window, at_least(1), "last key blocks that are always kept, the diagonal one included");
    v("last", last, at_least(0), "last query blocks that keep everything (last_n_blocks_full)");
    v("min_budget", min_budget, at_least(0), "the best blocks by energy that are kept whatever alpha says");
    v("rule", rule, one_of({"max_ratio", "top_p", "top_k"}), "ablation: how energies become a set");
    v("top_p", top_p, in(0, 1), "rule top_p: share of the row's energy to cover");
    v("top_k", top_k, at_least(1), "rule top_k: blocks per row, forced ones included");
    v("score", score, one_of({"energy", "row_softmax"}),
      "ablation: tile energy, or summed softmax of each query");
    v("sees", sees, one_of({"last_token", "first_token"}),
      "which queries score a block: those that see its last token (released) or already its first (V2's "
      "rule)");
    v("per_kv_head", per_kv_head, any(), "ablation: one selection per key/value head (V2's rule)");
    v("semantics", semantics, one_of({"intended", "released"}),
      "released: zero-padded queries of a partial last block take part in its energies");
  }
  std::string invalid() const { return block % 16 ? "block must be a multiple of 16" : ""; }
};

class FlashPrefill final : public MethodOf<FlashPrefillParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.block, params.block};
    at::Tensor energy, mask;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      const at::Tensor kbar = block_means(c.qkv.k, params.block).to(c.qkv.k.scalar_type());
      energy = tile_energy(c.qkv.q, kbar, c.qkv.scale, grid,
                           {.sees = params.sees == "last_token" ? Sees::last_token : Sees::first_token,
                            .per_kv_head = params.per_kv_head,
                            .row_softmax = params.score == "row_softmax",
                            .padded_rows = params.semantics == "released"});
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      mask = select(energy, grid);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  at::Tensor select(const at::Tensor& energy, const TileGrid& grid) const {
    const at::Tensor causal = causal_tiles(grid, energy.device());
    const at::Tensor forced = forced_tiles(grid, {params.sink, params.window, params.last}, energy.device());
    if (params.rule == "top_p") return select_top_p(energy, {params.top_p}, causal, forced);
    if (params.rule == "top_k") return select_top_k(energy, params.top_k, causal, forced);
    at::Tensor mask = select_max_ratio(energy, params.alpha, causal, forced);
    return params.min_budget > 0 ? mask | select_top_k(energy, params.min_budget, causal) : mask;
  }
};

}  // namespace

PREFILL_METHOD(
    FlashPrefill,
    {.name = "flashprefill",
     .doc = "tile energies of raw queries against pooled keys, threshold relative to the row's best",
     .source =
         "FlashPrefill (arXiv 2603.06199), github.com/qhfan/FlashPrefill, ops/flashprefill_native_forward.py",
     .deviations =
         "The released normalisation of the energies cancels in the comparison with alpha * max and is left "
         "out. Rules top_p and top_k, row_softmax and per_kv_head are ablations.",
     .cost = "2*n*(n/block)*D/2 FLOP per query head, 0.4 % of dense at block 128, plus n^2/(2*block) "
             "exponentials "
             "per head, which dominate on a CPU",
     .full_budget = R"({"alpha": 0})",
     .knob = "alpha",
     .knob_values = {1, 0.7, 0.18, 0.05, 0},
     .test_params = R"({"block": 32, "sink": 1, "window": 1, "last": 0})"})

}  // namespace prefill
