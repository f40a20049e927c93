// TriangleMix: full attention in shallow layers, Tri-shape in deep ones.
#include <algorithm>

#include "core/method.h"

namespace prefill {
namespace {

struct TriangleMixParams {
  int64_t sink = 8, local = 512, last = 128;
  int starting_layer = 16;
  std::vector<int> layers;
  template <class V>
  void fields(V& v) {
    v("sink", sink, at_least(0), "triangle layers: first keys that every query sees (n_init)");
    v("local", local, at_least(1), "triangle layers: last keys that every query sees, itself included (n_local)");
    v("last", last, at_least(0), "triangle layers: last queries that see every earlier key (n_last)");
    v("starting_layer", starting_layer, at_least(0),
      "first layer that is a triangle, those before it are dense (16 of 32 was found for Llama-3.1-8B)");
    v("layers", layers, at_least(0), "the triangle layers one by one, instead of starting_layer; empty: not used");
  }
  std::string invalid() const { return {}; }
};

class TriangleMix final : public MethodOf<TriangleMixParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    if (!is_triangle(c.layer)) return AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::window, 0});
    plan.windows = {Window{params.sink, params.local, params.last}};
    return plan;
  }

 private:
  bool is_triangle(int layer) const {
    if (params.layers.empty()) return layer >= params.starting_layer;
    return std::find(params.layers.begin(), params.layers.end(), layer) != params.layers.end();
  }
};

}  // namespace

PREFILL_METHOD(
    TriangleMix,
    {.name = "trianglemix",
     .doc = "dense shallow layers, Tri-shape (sink, window, last queries) in deep layers",
     .source = "TriangleMix (arXiv 2507.21526); tri_mix in github.com/microsoft/MInference",
     .deviations = "The released README names the parameter last_n, which its code ignores; here it is last and "
                   "works. The tri_mix_minference variant (MInference in the shallow layers) is not included. The "
                   "list of layers is an addition, for layers found by calibration.",
     .cost = "no estimate; dense layers 2*Hq*D*n^2, triangle layers about 4*Hq*D*n*(sink + local + last) FLOP",
     .full_budget = R"({"starting_layer": 1000000})",
     .knob = "starting_layer",
     .knob_values = {0, 1, 8, 16, 1000},
     .test_params = R"({"sink": 4, "local": 64, "last": 32, "starting_layer": 1})"})

}  // namespace prefill
