// Block top-k: for each block of queries the k key blocks with the best cheap score. The common ancestor of
// the block-sparse methods, with Quest's min-max bound or plain mean pooling as the score.
#include <ATen/ATen.h>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct BlockTopKParams {
  std::string estimator = "minmax";
  int block = 64;
  int64_t k = 16, sink = 1, local = 1, last = 0;
  bool share_group = false;
  template <class V>
  void fields(V& v) {
    v("estimator", estimator, one_of({"minmax", "mean"}),
      "minmax: mean query against the channel-wise extremes of the keys (Quest's bound); mean: against their "
      "mean "
      "(MInference's block_sparse)");
    v("block", block, in(16, 512), "queries and keys per block");
    v("k", k, at_least(1), "key blocks per query block, forced ones included");
    v("sink", sink, at_least(0), "first key blocks that are always kept");
    v("local", local, at_least(1), "last key blocks that are always kept, the diagonal one included");
    v("last", last, at_least(0), "last query blocks that keep everything");
    v("share_group", share_group, any(),
      "one selection per key/value head, from the mean score of its query heads");
  }
  std::string invalid() const { return block % 16 ? "block must be a multiple of 16" : ""; }
};

class BlockTopK final : public MethodOf<BlockTopKParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.block, params.block};
    const at::Device device = c.qkv.q.device();
    at::Tensor scores, mask;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      const at::Tensor qbar = block_means(c.qkv.q, params.block);
      scores = params.estimator == "minmax" ? minmax_bound(qbar, c.qkv.k, params.block)
                                            : grouped_dot(qbar, block_means(c.qkv.k, params.block));
      if (params.share_group) {
        const int64_t kv = c.qkv.kv_heads();
        scores = scores.view({kv, c.qkv.q_heads() / kv, grid.rows(), grid.cols()}).mean(1);
      }
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      const at::Tensor forced = forced_tiles(grid, {params.sink, params.local, params.last}, device);
      mask = select_top_k(scores, params.k, causal_tiles(grid, device), forced);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }
};

}  // namespace

PREFILL_METHOD(
    BlockTopK,
    {.name = "block_topk",
     .doc = "the k key blocks with the best pooled score for each query block",
     .source = "min-max bound of Quest (arXiv 2406.10774, github.com/mit-han-lab/Quest), which is a decoding "
               "method; mean pooling as in block_sparse of MInference (arXiv 2407.02490)",
     .deviations =
         "Quest scores one decoding query; a prefill block is represented here by the mean of its queries, "
         "for which the bound holds on average only.",
     .cost =
         "pooling reads Q and K once; scores 2*(n/block)^2*D*Hq FLOP (twice that for minmax): below 0.1 % of "
         "dense",
     .full_budget = R"({"k": 1000000})",
     .knob = "k",
     .knob_values = {1, 2, 4, 16, 1000},
     .test_params = R"({"block": 32, "k": 4})"})

}  // namespace prefill
