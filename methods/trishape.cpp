// Tri-shape: A-shape plus a dense band of last queries, the same for every head and layer.
#include "core/method.h"

namespace prefill {
namespace {

struct TriShapeParams {
  int64_t sink = 128, local = 3968, last = 100;
  template <class V>
  void fields(V& v) {
    v("sink", sink, at_least(0), "first keys that every query sees (n_init)");
    v("local", local, at_least(1), "last keys that every query sees, itself included (n_local)");
    v("last", last, at_least(0), "last queries of the prompt that see every earlier key (n_last)");
  }
  std::string invalid() const { return {}; }
};

class TriShape final : public MethodOf<TriShapeParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::window, 0});
    plan.windows = {Window{params.sink, params.local, params.last}};
    return plan;
  }
};

}  // namespace

PREFILL_METHOD(
    TriShape,
    {.name = "trishape",
     .doc = "A-shape plus a dense band of the prompt's last queries, token exact",
     .source =
         "tri_shape in MInference (github.com/microsoft/MInference), from SCBench (arXiv 2412.10319); its "
         "patch's sizes are the defaults here",
     .cost = "no estimate; attention about 4*Hq*D*n*(sink + local) + 4*Hq*D*last*n FLOP",
     .full_budget = R"({"local": 1000000000})",
     .knob = "local",
     .knob_values = {1, 16, 64, 200, 1000}})

}  // namespace prefill
