// TriangleMix's offline choice of layers. The paper ranks layers by the gradient of the first generated token
// with respect to the attention that a triangle leaves out; without gradients the same question is asked
// directly: how much does the next token's distribution move when one layer alone becomes a triangle? Then as
// many layers as the tolerance allows become triangles together, the least important first.
#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "core/base/text.h"
#include "core/calibrate.h"

namespace prefill {
namespace {

struct TriangleLayersParams {
  double tolerance = 0.05;
  int64_t sink = 8, local = 512, last = 128;
  template <class V>
  void fields(V& v) {
    v("tolerance", tolerance, at_least(0),
      "largest Kullback-Leibler divergence in nats of the next token from dense, mean over prompts, with all "
      "chosen "
      "layers as triangles");
    v("sink", sink, at_least(0), "as the method's");
    v("local", local, at_least(1),
      "as the method's; prompts must be much longer, or every layer seems unimportant");
    v("last", last, at_least(0), "as the method's");
  }
  std::string invalid() const { return {}; }
};

class TriangleLayers final : public Calibrator {
 public:
  using Params = TriangleLayersParams;
  TriangleLayers(Params p, MethodEnv env) : params_(std::move(p)), model_(std::move(env.model)) {}

  void see(const LayerContext& c, int) override {
    if (c.seq_len <= params_.sink + params_.local + params_.last)
      throw InputError(str("a prompt of ", c.seq_len,
                           " tokens fits into the triangle (sink + local + last = ",
                           params_.sink + params_.local + params_.last, "): give longer prompts"));
  }

  void explore(int prompts, const Prefill& prefill) override {
    for (int p = 0; p < prompts; ++p) dense_.push_back(log_probs(prefill(p, plan_of({}))));
    for (int l = 0; l < model_.layers; ++l) effect_.push_back(divergence({l}, prefill));
    std::vector<int> order(effect_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return effect_[size_t(a)] < effect_[size_t(b)]; });
    // The largest number of layers within the tolerance, by bisection: `low` layers are within, `high` are
    // not.
    size_t low = 0, high = order.size() + 1;
    while (high - low > 1) {
      const size_t middle = (low + high) / 2;
      const double together = divergence({order.begin(), order.begin() + int64_t(middle)}, prefill);
      if (together <= params_.tolerance) {
        low = middle;
        together_ = together;
      } else {
        high = middle;
      }
    }
    layers_.assign(order.begin(), order.begin() + int64_t(low));
    std::sort(layers_.begin(), layers_.end());
  }

  Result finish(int) override {
    return {
        {{"layers", layers_},
         {"sink", params_.sink},
         {"local", params_.local},
         {"last", params_.last},
         {"divergence_alone", effect_}},
        {{"triangle_layers", layers_.size()}, {"layers", model_.layers}, {"divergence_together", together_}}};
  }

 private:
  static at::Tensor log_probs(const at::Tensor& logits) {
    return logits.view({-1}).to(at::kCPU, at::kDouble).log_softmax(0);
  }

  PlanOfLayer plan_of(std::vector<int> triangles) const {
    return [this, triangles = std::move(triangles)](const LayerContext& c) {
      AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
      if (std::find(triangles.begin(), triangles.end(), c.layer) == triangles.end()) return plan;
      plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::window, 0});
      plan.windows = {Window{params_.sink, params_.local, params_.last}};
      return plan;
    };
  }

  double divergence(std::vector<int> triangles, const Prefill& prefill) const {
    double sum = 0;
    const PlanOfLayer plan = plan_of(std::move(triangles));
    for (size_t p = 0; p < dense_.size(); ++p)
      sum += (dense_[p].exp() * (dense_[p] - log_probs(prefill(int(p), plan)))).sum().item<double>();
    return std::max(0.0, sum / double(dense_.size()));
  }

  Params params_;
  ModelShape model_;
  std::vector<at::Tensor> dense_;  // log probabilities of the next token, per prompt
  std::vector<double> effect_;     // per layer
  std::vector<int> layers_;
  double together_ = 0;
};

const RegisterCalibrator<TriangleLayers> triangle_layers_entry(
    {.name = "trianglemix",
     .doc = "which layers can be triangles before the next token changes",
     .field = "layer_file"},
    __FILE__);

}  // namespace
}  // namespace prefill
