// XAttention's offline thresholds, by the rule of its released profiler
// (xattn/threshold/profile_threshold/profile_threshold.py): what share of the antidiagonal mass must be
// covered so that the blocks with most of the true attention are in.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "core/base/text.h"
#include "core/calibrate.h"
#include "methods/parts/head_table.h"
#include "methods/parts/scores.h"

namespace prefill {
namespace {

struct ThresholdProfileParams {
  double coverage = 0.9;
  int stride = 16, block = 128;
  template <class V>
  void fields(V& v) {
    v("coverage", coverage, in(0, 1),
      "share of each row's true attention that the blocks to be found hold (0.9)");
    v("stride", stride, in(1, 128), "as the method's; a table serves one stride");
    v("block", block, in(16, 512), "as the method's");
  }
  std::string invalid() const {
    if (block % stride) return "block must be a multiple of stride";
    if (block % 16) return "block must be a multiple of 16";
    return "";
  }
};

class ThresholdProfile final : public Calibrator {
 public:
  using Params = ThresholdProfileParams;
  ThresholdProfile(Params p, MethodEnv env)
      : params_(std::move(p)), threshold_(HeadTable::filled(env.model, 0)) {}

  void see(const LayerContext& c, int) override {
    AttentionPlan all = AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    all.tiles.q_tile = all.tiles.k_tile = params_.block;
    all.want_tile_mean.assign(all.heads.size(), 1);
    const at::Tensor mass = c.backend.attend(c.qkv, all).tile_mean.to(at::kFloat);  // [Hq, nb, nb]
    const at::Tensor found =
        antidiagonal_mass(c.qkv.q, c.qkv.k, c.qkv.scale, params_.block, {.stride = params_.stride});
    // Per row the fewest blocks that hold `coverage`, and the least antidiagonal mass among them.
    const auto [sorted, order] = mass.sort(-1, /*descending=*/true);
    const at::Tensor before = sorted.cumsum(-1) - sorted;
    const at::Tensor outside = before >= params_.coverage * sorted.sum(-1, /*keepdim=*/true);
    const at::Tensor least = found.gather(-1, order)
                                 .masked_fill(outside, std::numeric_limits<float>::infinity())
                                 .amin(-1, /*keepdim=*/true);
    const at::Tensor share =
        ((found * (found >= least)).sum({1, 2}) / found.sum({1, 2})).to(at::kCPU, at::kDouble);
    std::vector<double>& row = threshold_.rows[size_t(c.layer)];
    for (size_t h = 0; h < row.size(); ++h) {
      double& t = row[h];
      t = std::min(1.0, std::max(t, share[int64_t(h)].item<double>()));  // the largest over all prompts
    }
  }

  Result finish(int) override {
    double smallest = 1, largest = 0;
    for (const auto& row : threshold_.rows)
      for (double t : row) smallest = std::min(smallest, t), largest = std::max(largest, t);
    return {{{"thresholds", threshold_.rows}, {"stride", params_.stride}, {"block", params_.block}},
            {{"mean_threshold", threshold_.mean()},
             {"smallest_threshold", smallest},
             {"largest_threshold", largest}}};
  }

 private:
  Params params_;
  HeadTable threshold_;
};

const RegisterCalibrator<ThresholdProfile> threshold_profile_entry(
    {.name = "xattention",
     .doc = "one threshold per head: the antidiagonal mass to cover so that the blocks with most attention "
            "are in",
     .field = "thresholds"},
    __FILE__);

}  // namespace
}  // namespace prefill
