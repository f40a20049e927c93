// StreamingLLM / A-shape: attention sinks and a sliding window, the same for every head and layer.
#include "core/method.h"

namespace prefill {
namespace {

struct StreamingParams {
  int64_t sink = 100, local = 800;
  template <class V>
  void fields(V& v) {
    v("sink", sink, at_least(0), "first keys that every query sees");
    v("local", local, at_least(1), "last keys that every query sees, itself included");
  }
  std::string invalid() const { return {}; }
};

class Streaming final : public MethodOf<StreamingParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::window, 0});
    plan.windows = {Window{params.sink, params.local, 0}};
    return plan;
  }
};

}  // namespace

PREFILL_METHOD(
    Streaming,
    {.name = "streaming",
     .doc = "A-shape: the first keys and a sliding window, token exact",
     .source =
         "StreamingLLM (Xiao et al., arXiv 2309.17453) as prefill mask; A-shape in MInference (arXiv "
         "2407.02490). Published settings (sink, local): 100, 800 (MInference's per-head search, the default "
         "here); 128, 3968 (its a_shape mode); 1024, 8192 (baseline of FlexPrefill's scripts)",
     .cost = "no estimate; attention about 4*Hq*D*n*(sink + local) FLOP",
     .full_budget = R"({"local": 1000000000})",
     .knob = "local",
     .knob_values = {1, 16, 64, 200, 1000}})

}  // namespace prefill
