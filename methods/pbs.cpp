// PBS-Attn: keys are reordered by importance within segments, so that important ones share blocks; pooled
// scores then choose blocks of the reordered keys. Each query keeps its own segment whole.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct PbsParams {
  double p = 0.9;
  int block = 128, segment = 256;
  bool permute = true, force_first = true;
  std::string query_pool = "mean", key_pool = "mean", semantics = "intended";
  template <class V>
  void fields(V& v) {
    v("p", p, in(0, 1), "share of a row's mass outside its own segment to cover (threshold)");
    v("block", block, in(16, 512), "queries and keys per block");
    v("segment", segment, in(16, 65536),
      "keys among which the order may change; a multiple of block (published 256)");
    v("permute", permute, any(), "false: ablation, keys keep their order");
    v("force_first", force_first, any(), "the block that holds token 0 is kept");
    v("query_pool", query_pool, one_of({"mean", "max"}), "how a block of queries is pooled");
    v("key_pool", key_pool, one_of({"mean", "max"}), "how a block of keys is pooled");
    v("semantics", semantics, one_of({"intended", "released"}),
      "released: importance rows see future keys too, products in the model's dtype, a target that rounding "
      "keeps out "
      "of reach selects nothing");
  }
  std::string invalid() const {
    if (block % 16) return "block must be a multiple of 16";
    return segment % block ? "segment must be a multiple of block" : "";
  }
};

class Pbs final : public MethodOf<PbsParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.block, params.block};
    const at::Tensor row_segment = segment_of_block(grid), own = own_segment(grid, row_segment);
    at::Tensor pos, mass, slots;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      pos = key_order(c.qkv);
      mass = block_mass(c.qkv, pos, candidates(grid, row_segment));
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      slots = select(mass, pos, grid, row_segment);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_of(slots, pos, own.unsqueeze(0), grid);
  }

 private:
  bool released() const { return params.semantics == "released"; }

  at::Tensor segment_of_block(const TileGrid& grid) const {
    return (at::arange(grid.rows(), at::kLong) * params.block).div(params.segment, "floor");
  }
  at::Tensor own_segment(const TileGrid& grid, const at::Tensor& segment) const {
    return causal_tiles(grid, at::kCPU) & (segment.unsqueeze(1) == segment.unsqueeze(0));
  }
  at::Tensor candidates(const TileGrid& grid, const at::Tensor& segment) const {
    return causal_tiles(grid, at::kCPU) & (segment.unsqueeze(1) != segment.unsqueeze(0));
  }

  /// pos [Hq, N]: the token that stands in each slot. Complete segments only are reordered.
  at::Tensor key_order(const Qkv& x) const {
    const int64_t n = x.seq_len(), heads = x.q_heads(), whole = n / params.segment * params.segment;
    at::Tensor pos = at::arange(n, x.q.options().dtype(at::kLong)).expand({heads, n}).clone();
    if (!params.permute || whole == 0 || n == params.segment) return pos;
    const int64_t tail = std::min<int64_t>(params.block, n);
    const at::ScalarType dtype = released() ? x.q.scalar_type() : at::kFloat;
    at::Tensor logits =
        grouped_dot(x.q.narrow(1, n - tail, tail).to(dtype), x.k.narrow(1, 0, whole).to(dtype)) * x.scale;
    logits = logits.to(at::kFloat);
    if (!released()) {
      at::Tensor row = at::arange(n - tail, n, pos.options()).unsqueeze(1);
      logits.masked_fill_(at::arange(whole, pos.options()).unsqueeze(0) > row,
                          -std::numeric_limits<float>::infinity());
    }
    at::Tensor importance = logits.softmax(-1).mean(1).view({heads, whole / params.segment, params.segment});
    at::Tensor order = importance.argsort(/*stable=*/true, -1, /*descending=*/true);
    at::Tensor start = at::arange(whole / params.segment, pos.options()).view({1, -1, 1}) * params.segment;
    pos.narrow(1, 0, whole).copy_((order + start).view({heads, whole}));
    return pos;
  }

  at::Tensor pooled(const at::Tensor& x, const std::string& how) const {
    if (how == "mean") return block_means(x, params.block, TailMean::over_block);
    const int64_t blocks =
        (x.size(1) + params.block - 1) / params.block;  // zeros fill a partial block, as released
    at::Tensor padded = at::constant_pad_nd(x.to(at::kFloat), {0, 0, 0, blocks * params.block - x.size(1)});
    return padded.unflatten(1, {blocks, params.block}).amax(2);
  }

  at::Tensor block_mass(const Qkv& x, const at::Tensor& pos, const at::Tensor& allowed) const {
    const int64_t group = x.q_heads() / x.kv_heads(), dim = x.head_dim();
    at::Tensor k = x.k.repeat_interleave(group, 0).gather(1, pos.unsqueeze(-1).expand({-1, -1, dim}));
    const at::ScalarType dtype = released() ? x.q.scalar_type() : at::kFloat;
    at::Tensor logits =
        grouped_dot(pooled(x.q, params.query_pool).to(dtype), pooled(k, params.key_pool).to(dtype)) * x.scale;
    return masked_softmax(logits.to(at::kFloat), allowed.to(x.q.device()));
  }

  /// Blocks of slots outside the row's own segment: bool [Hq, rows, cols].
  at::Tensor select(const at::Tensor& mass, const at::Tensor& pos, const TileGrid& grid,
                    const at::Tensor& segment) const {
    const at::Tensor allowed = candidates(grid, segment).to(mass.device());
    at::Tensor picked = select_top_p(mass, {params.p}, allowed);
    if (released()) {
      at::Tensor reached =
          std::get<0>(mass.sort(-1, /*descending=*/true)).cumsum(-1).amax(-1, true) >= params.p;
      picked = picked & reached;
    }
    if (!params.force_first) return picked;
    at::Tensor first = (pos == 0).to(at::kInt).argmax(1).div(params.block, "floor");  // [Hq]
    at::Tensor col = at::arange(grid.cols(), first.options()).view({1, 1, -1});
    return picked | ((col == first.view({-1, 1, 1})) & allowed);
  }

  /// The chosen slots as single keys, the own segment as tiles.
  AttentionPlan plan_of(const at::Tensor& slots, const at::Tensor& pos, const at::Tensor& own,
                        const TileGrid& grid) const {
    const int64_t heads = slots.size(0), rows = grid.rows(), n = grid.n;
    AttentionPlan plan = plan_from_mask(
        own.to(slots.device()).expand({heads, rows, grid.cols()}).contiguous(), grid, int(heads));
    at::Tensor tokens = slots.repeat_interleave(params.block, 2).narrow(2, 0, n);  // by slot
    tokens = at::zeros_like(tokens).scatter_(2, pos.unsqueeze(1).expand({heads, rows, n}), tokens);
    const TileSet columns = tiles_from_mask(tokens, params.block, 1);
    plan.tiles.col_rows = 1;
    plan.tiles.col_ptr = columns.tile_ptr;
    plan.tiles.col_idx = columns.tile_idx;
    return plan;
  }
};

}  // namespace

PREFILL_METHOD(
    Pbs,
    {.name = "pbs",
     .doc = "PBS-Attn: keys sorted by importance within segments, pooled scores choose blocks of the sorted "
            "keys",
     .source = "PBS-Attn (arXiv 2510.21270), github.com/xinghaow99/pbs-attn",
     .deviations =
         "Only keys move, so a block of sorted keys outside the own segment is a set of single keys before "
         "the "
         "queries, and the plan lists it as columns: the keys computed are the same, but they are gathered "
         "one "
         "by one instead of being copied into order, so the time says nothing about the release. Equal "
         "importances keep the token order. A target of 1 takes all under intended.",
     .cost = "importance 2*block*n*D FLOP per head; sorting n/segment times `segment` keys; pooled scores "
             "2*(n/block)^2*D; the column lists need Hq*n^2/block bytes while they are built",
     .full_budget = R"({"p": 1.0})",
     .knob = "p",
     .knob_values = {0, 0.3, 0.6, 0.9, 1},
     .test_params = R"({"block": 32, "segment": 64})"})

}  // namespace prefill
