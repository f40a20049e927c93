// SALE's offline thresholds: each head starts from a generous one and halves it until sparse attention
// differs little enough from full attention. The result is the smallest over all prompts.
#include <ATen/ATen.h>

#include <map>

#include "core/base/text.h"
#include "core/calibrate.h"
#include "methods/parts/head_table.h"
#include "methods/parts/sale_shares.h"

namespace prefill {
namespace {

struct SaleThresholdParams {
  double start = 0.008, least = 1e-4, error = 0.4;
  int bits = 4;
  std::string scales = "group";
  int64_t sink = 32, local = 128;
  template <class V>
  void fields(V& v) {
    v("start", start, in(0, 1), "threshold to begin with (published 0.008)");
    v("least", least, in(0, 1), "thresholds at or below this become 0, which makes the head dense");
    v("error", error, at_least(0),
      "largest sum over channels of |output - full attention's output|, mean over queries (published: 0.4 "
      "for Llama-3.1-8B, 2.0 for Qwen2.5-32B)");
    v("bits", bits, in(0, 8), "as the method's");
    v("scales", scales, one_of({"group", "token"}), "as the method's");
    v("sink", sink, at_least(0), "as the method's");
    v("local", local, at_least(32), "as the method's");
  }
  std::string invalid() const {
    if (bits == 1) return "bits must be 0 or at least 2";
    if (sink % kSaleKeys || local % kSaleKeys) return "sink and local must be multiples of 32";
    if (start <= least) return "start must be above least";
    return "";
  }
};

class SaleThresholds final : public Calibrator {
 public:
  using Params = SaleThresholdParams;
  SaleThresholds(Params p, MethodEnv env)
      : params_(std::move(p)),
        tau_(HeadTable::filled(env.model, params_.start)),
        density_(HeadTable::filled(env.model, 1)) {}

  void see(const LayerContext& c, int) override {
    const SaleEstimate how{params_.bits, params_.scales, params_.sink, params_.local};
    const TileGrid grid{c.seq_len, kSaleQueries, kSaleKeys};
    const int heads = c.qkv.q_heads();
    const at::Tensor always = sale_always(grid, how, c.qkv.q.device());
    const at::Tensor shares = sale_shares(c.qkv, grid, always, how);
    const at::Tensor full =
        c.backend.attend(c.qkv, AttentionPlan::uniform(heads, {Route::dense, 0})).out.to(at::kFloat);
    std::vector<double>& tau = tau_.rows[size_t(c.layer)];
    for (bool halved = true; halved;) {
      halved = false;
      const AttentionPlan plan = plan_from_mask(sale_mask(shares, always, tau), grid, heads);
      const at::Tensor out = c.backend.attend(c.qkv, plan).out.to(at::kFloat);
      const at::Tensor error = (out - full).abs().sum(-1).mean(-1).to(at::kCPU);
      for (size_t h = 0; h < tau.size(); ++h) {
        if (tau[h] == 0 || error[int64_t(h)].item<float>() < params_.error) continue;
        tau[h] /= 2;
        if (tau[h] <= params_.least) tau[h] = 0;
        halved = true;
      }
      if (!halved) density_.rows[size_t(c.layer)] = density(plan, c.seq_len);
    }
  }

  Result finish(int) override {
    std::map<std::string, int> heads_at;
    for (const auto& row : tau_.rows)
      for (double tau : row) ++heads_at[number_text(tau)];
    return {{{"thresholds", tau_.rows},
             {"bits", params_.bits},
             {"scales", params_.scales},
             {"sink", params_.sink},
             {"local", params_.local}},
            {{"heads_by_threshold", heads_at}, {"mean_density_last_prompt", density_.mean()}}};
  }

 private:
  Params params_;
  HeadTable tau_, density_;
};

const RegisterCalibrator<SaleThresholds> sale_thresholds_entry(
    {.name = "sale",
     .doc = "one threshold per head, halved until the head's output is near full attention's on every prompt",
     .field = "thresholds"},
    __FILE__);

}  // namespace
}  // namespace prefill
