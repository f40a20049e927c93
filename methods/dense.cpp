// Dense causal attention: the accuracy ceiling and the latency baseline of every comparison.
#include "core/method.h"

namespace prefill {
namespace {

struct DenseParams {
  template <class V>
  void fields(V&) {}
  std::string invalid() const { return {}; }
};

class Dense final : public MethodOf<DenseParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    return AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
  }
};

}  // namespace

PREFILL_METHOD(
    Dense,
    {.name = "dense",
     .doc = "every causal pair: the accuracy ceiling and the latency baseline",
     .source =
         "FlashAttention (Dao et al., arXiv 2205.14135 and 2307.08691); the kernel is the backend's own",
     .cost = "no estimate; attention 2*Hq*D*n^2 FLOP",
     .full_budget = "{}"})

}  // namespace prefill
