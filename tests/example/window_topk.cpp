// A sliding window plus the key tiles that the last queries look at most.
#include <ATen/ATen.h>

#include "core/method.h"

namespace prefill {

struct WindowTopkParams {
  int local_tiles = 2, top_tiles = 8, tail = 64;
  std::string semantics = "intended";
  template <class V>
  void fields(V& v) {
    v("local_tiles", local_tiles, at_least(1), "tiles of 64 keys kept around the diagonal");
    v("top_tiles", top_tiles, at_least(0), "tiles kept for their attention from the last queries");
    v("tail", tail, in(16, 512), "how many last queries vote");
    v("semantics", semantics, one_of({"released", "intended"}),
      "this method has no released code; both are the same");
  }
  // Which combinations make no sense, and why; "" when all is well. Such points of a sweep are pruned and
  // listed.
  std::string invalid() const { return tail % 16 ? "tail must be a multiple of 16" : ""; }
};

class WindowTopk final : public MethodOf<WindowTopkParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    constexpr int tile = 64;
    const int64_t rows = (c.seq_len + tile - 1) / tile;
    at::Tensor votes;  // [heads, rows]
    {
      StageScope scope(c.clock, Stage::estimate, c.layer);
      const at::Tensor vertical = c.backend.tail_sums(c.qkv, params.tail).first;  // [heads, n]
      votes = at::constant_pad_nd(vertical, {0, rows * tile - c.seq_len}).view({-1, rows, tile}).sum(2);
    }
    StageScope scope(c.clock, Stage::select, c.layer);
    const int64_t top = std::min<int64_t>(params.top_tiles, rows);
    const at::Tensor chosen =
        at::zeros_like(votes, at::kBool).scatter_(1, std::get<1>(votes.topk(top)), true);  // [heads, rows]
    const at::Tensor row = at::arange(rows, votes.options().dtype(at::kLong));
    const at::Tensor age = row.unsqueeze(1) - row.unsqueeze(0);  // [query tile, key tile]
    const at::Tensor mask = (chosen.unsqueeze(1) | (age < params.local_tiles)) & (age >= 0);
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::tiles, 0});
    for (int h = 0; h < c.qkv.q_heads(); ++h) plan.heads[size_t(h)].index = h;
    plan.tiles = tiles_from_mask(mask, tile, tile);
    return plan;
  }
};

PREFILL_METHOD(WindowTopk, {.name = "window_topk",
                            .doc = "sliding window plus the tiles the last queries attend to",
                            .source = "the example of docs/adding-a-method.md",
                            .cost = "2 * tail * n * D flops per head",
                            .full_budget = R"({"local_tiles": 1000000})",
                            .knob = "top_tiles",
                            .knob_values = {0, 4, 16}})

}  // namespace prefill
