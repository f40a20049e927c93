// TriangleMix: full attention in shallow layers, Tri-shape in deep ones.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/method.h"
#include "core/text/json_view.h"
#include "methods/parts/artifacts.h"

namespace prefill {
namespace {

struct TriangleMixParams {
  int64_t sink = 8, local = 512, last = 128;
  int starting_layer = 16;
  std::vector<int> layers;
  Path layer_file;
  template <class V>
  void fields(V& v) {
    v("sink", sink, at_least(0), "triangle layers: first keys that every query sees (n_init)");
    v("local", local, at_least(1),
      "triangle layers: last keys that every query sees, itself included (n_local)");
    v("last", last, at_least(0), "triangle layers: last queries that see every earlier key (n_last)");
    v("starting_layer", starting_layer, at_least(0),
      "first layer that is a triangle, those before it are dense (16 of 32 was found for Llama-3.1-8B)");
    v("layers", layers, at_least(0),
      "the triangle layers one by one, instead of starting_layer; empty: not used");
    v("layer_file", layer_file, any(),
      "the triangle layers as `calibrate trianglemix` found them, instead of either");
  }
  std::string invalid() const {
    return !layers.empty() && !layer_file.text.empty() ? "give layers or layer_file, not both" : "";
  }
};

class TriangleMix final : public MethodOf<TriangleMixParams> {
 public:
  TriangleMix(TriangleMixParams p, MethodEnv e)
      : MethodOf(std::move(p), std::move(e)), named_(params.layers) {
    if (params.layer_file.text.empty()) return;
    const nlohmann::json file = *read_json_file(params.layer_file.text);
    if (!is_artifact(file))
      throw InputError(params.layer_file.text + ": not an artefact of `calibrate trianglemix`");
    const nlohmann::json content = artifact_content(file, params.layer_file.text, "trianglemix", env.model);
    try {
      named_ = content.at("layers").get<std::vector<int>>();
    } catch (const nlohmann::json::exception&) {
      throw InputError(params.layer_file.text + ": 'content' must hold 'layers', a list of layer numbers");
    }
    by_name_ = true;
  }
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    if (!is_triangle(c.layer)) return AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::window, 0});
    plan.windows = {Window{params.sink, params.local, params.last}};
    return plan;
  }

 private:
  bool is_triangle(int layer) const {
    if (!by_name_ && named_.empty()) return layer >= params.starting_layer;
    return std::find(named_.begin(), named_.end(), layer) != named_.end();
  }

  std::vector<int> named_;
  bool by_name_ = false;  // the list counts even when it is empty
};

}  // namespace

PREFILL_METHOD(
    TriangleMix,
    {.name = "trianglemix",
     .doc = "dense shallow layers, Tri-shape (sink, window, last queries) in deep layers",
     .source = "TriangleMix (arXiv 2507.21526); tri_mix in github.com/microsoft/MInference",
     .deviations =
         "The released README names the parameter last_n, which its code ignores; here it is last and "
         "works. The tri_mix_minference variant (MInference in the shallow layers) is not included. The "
         "list of layers is an addition, for layers found by calibration.",
     .cost =
         "no estimate; dense layers 2*Hq*D*n^2, triangle layers about 4*Hq*D*n*(sink + local + last) FLOP",
     .full_budget = R"({"starting_layer": 1000000})",
     .knob = "starting_layer",
     .knob_values = {0, 1, 8, 16, 1000},
     .test_params = R"({"sink": 4, "local": 64, "last": 32, "starting_layer": 1})"})

}  // namespace prefill
