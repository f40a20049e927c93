// SALE: exact attention over sink and local keys gives each query its scale; every other key tile is judged
// by low-bit products: kept when some query would give some key of it more than a small share of that
// attention.
#include <ATen/core/Tensor.h>

#include <optional>

#include "core/method.h"
#include "methods/parts/head_table.h"
#include "methods/parts/sale_shares.h"

namespace prefill {
namespace {

struct SaleParams {
  double tau = 0.004;
  Path thresholds;
  int bits = 4;
  std::string scales = "group";
  int64_t sink = 32, local = 128, dense_below = 1024;
  template <class V>
  void fields(V& v) {
    v("tau", tau, in(0, 1),
      "share of the exact sink and local attention that makes a tile worth keeping; 0: everything. Released "
      "example "
      "0.004, calibration starts at 0.008");
    v("thresholds", thresholds, any(),
      "one tau per layer and query head instead: what `calibrate sale` wrote, or a JSON list of lists");
    v("bits", bits, in(0, 8), "precision of the estimate, 2 to 8; 0: unquantised (ablation). Published 4");
    v("scales", scales, one_of({"group", "token"}),
      "which tokens share a quantisation scale (quant_mode 3 or 2)");
    v("sink", sink, at_least(0), "first keys that are always kept; a multiple of 32");
    v("local", local, at_least(32),
      "last keys that are always kept (local_window); up to 96 more, so that a multiple of 128 lies between. "
      "A multiple of 32");
    v("dense_below", dense_below, at_least(0), "prompts up to this length run dense");
  }
  std::string invalid() const {
    if (bits == 1) return "bits must be 0 or at least 2";
    if (sink % kSaleKeys || local % kSaleKeys) return "sink and local must be multiples of 32";
    return "";
  }
};

class Sale final : public MethodOf<SaleParams> {
 public:
  Sale(SaleParams p, MethodEnv e) : MethodOf(std::move(p), std::move(e)) {
    if (!params.thresholds.text.empty())
      table_ = read_head_table(
          params.thresholds.text, "", "sale", env.model,
          {{"bits", params.bits}, {"scales", params.scales}, {"sink", params.sink}, {"local", params.local}});
    if (table_)
      for (auto& layer : table_->rows) layer = env.own(layer);
  }

  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    if (c.seq_len <= params.dense_below) return AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    const TileGrid grid{c.seq_len, kSaleQueries, kSaleKeys};
    at::Tensor share, mask;
    const at::Tensor always = sale_always(grid, estimate(), c.qkv.q.device());
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      share = sale_shares(c.qkv, grid, always, estimate());
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      mask = sale_mask(
          share, always,
          table_ ? table_->layer(c.layer) : std::vector<double>(size_t(c.qkv.q_heads()), params.tau));
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  SaleEstimate estimate() const { return {params.bits, params.scales, params.sink, params.local}; }

  std::optional<HeadTable> table_;
};

}  // namespace

PREFILL_METHOD(
    Sale,
    {.name = "sale",
     .doc = "SALE-style: low-bit products of all tiles, kept relative to the exact sink and local attention",
     .source = "SALE (arXiv 2505.24179), github.com/BirdChristopher/SALE",
     .deviations =
         "The low-bit products are simulated by quantising, dequantising and a float32 product. The two-pass "
         "rule only (what the released scripts run). The computation pass is the plan's attention, not INT8.",
     .cost = "n^2*D low-bit operations per query head, half of the dense FLOP, at INT4 rate in the source. "
             "Simulated in "
             "float32 on a CPU this is above 25 % of dense attention and always will be: use it there for "
             "accuracy only",
     .full_budget = R"({"tau": 0})",
     .knob = "tau",
     .knob_values = {1, 0.1, 0.02, 0.004, 0.0005, 0},
     .test_params = R"({"dense_below": 0})"})

}  // namespace prefill
