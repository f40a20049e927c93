// UniSparse-style: tokens (and heads) averaged to composite tokens, attention among those, block sums of it.
#include <ATen/ATen.h>

#include <limits>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct UniSparseParams {
  int block = 128, c_q = 16, c_k = 16, c_h = 1;
  std::string select = "top_p", aggregate = "sum";
  double p = 0.9;
  int64_t k = 16, sink = 1, local = 1;
  template <class V>
  void fields(V& v) {
    v("p", p, in(0, 1), "select top_p: share of a row's mass to cover, forced blocks first");
    v("k", k, at_least(1), "select top_k: key blocks per row, forced ones included");
    v("select", select, one_of({"top_p", "top_k"}),
      "how masses become a set (the paper's 'top-P' leaves it open)");
    v("block", block, in(16, 512), "queries and keys per block");
    v("c_q", c_q, in(1, 512), "queries per composite query; divides block");
    v("c_k", c_k, in(1, 512), "keys per composite key; divides block");
    v("c_h", c_h, in(1, 128), "query heads per composite head; divides or is a multiple of the group size");
    v("aggregate", aggregate, one_of({"sum", "max", "mean_logit"}),
      "composite probabilities (or logits) to a block score");
    v("sink", sink, at_least(0), "first key blocks that are always kept");
    v("local", local, at_least(1), "last key blocks that are always kept, the diagonal one included");
  }
  std::string invalid() const {
    if (block % 16) return "block must be a multiple of 16";
    if (block % c_q || block % c_k) return "c_q and c_k must divide block";
    if (aggregate == "mean_logit" && select == "top_p") return "mean_logit is no mass: use select top_k";
    return "";
  }
};

class UniSparse final : public MethodOf<UniSparseParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.block, params.block};
    at::Tensor scores, mask;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      scores = block_scores(c.qkv, grid);
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      const at::Tensor causal = causal_tiles(grid, scores.device());
      const at::Tensor forced = forced_tiles(grid, {params.sink, params.local, 0}, scores.device());
      mask = params.select == "top_p" ? select_top_p(scores, {params.p}, causal, forced)
                                      : select_top_k(scores, params.k, causal, forced);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  /// Means of `count` consecutive heads.
  static at::Tensor head_means(const at::Tensor& x, int64_t count) {
    return count == 1 ? x : x.unflatten(0, {x.size(0) / count, count}).mean(1);
  }

  /// Block scores per composite head: [Hq / c_h, rows, cols].
  at::Tensor block_scores(const Qkv& x, const TileGrid& grid) const {
    const int64_t group = x.q_heads() / x.kv_heads(), n = x.seq_len();
    if (env.heads.count > 0 && group % params.c_h)  // alike on all ranks, whatever heads each has
      throw Unsupported(str("unisparse: ranks that share a model need a c_h that divides the group size ",
                            group, ", not ", params.c_h));
    if (x.q_heads() % params.c_h || (group % params.c_h && params.c_h % group))
      throw Unsupported(str("unisparse: c_h ", params.c_h, " must divide ", x.q_heads(),
                            " query heads and divide or be a "
                            "multiple of the ",
                            group, " that share a key head"));
    const int64_t heads = x.q_heads() / params.c_h, per_q = params.block / params.c_q,
                  per_k = params.block / params.c_k;
    // Composite tokens are kept in the model's dtype.
    at::Tensor q = head_means(rounded_to(block_means(x.q, params.c_q), x.q.scalar_type()), params.c_h);
    at::Tensor k = head_means(rounded_to(block_means(x.k, params.c_k), x.k.scalar_type()),
                              std::max<int64_t>(1, params.c_h / group));
    const int64_t real_q = q.size(1);
    q = at::constant_pad_nd(q, {0, 0, 0, grid.rows() * per_q - real_q});
    k = at::constant_pad_nd(k, {0, 0, 0, grid.cols() * per_k - k.size(1)});
    const auto ids = q.options().dtype(at::kLong);
    at::Tensor out = at::zeros({heads, grid.rows(), grid.cols()}, q.options());
    in_bands(q.device(), q.size(1), heads, k.size(1), per_q, [&](int64_t first, int64_t count) {
      const int64_t rows = count / per_q, cols = std::min(grid.cols(), (first + count) / per_q),
                    keys = cols * per_k;
      // Products of composite tokens that stand in 16 bits are exact in float32 on the tensor cores of a GPU.
      const bool narrow = q.is_cuda() && x.q.scalar_type() != at::kFloat && params.c_h == 1;
      const at::Tensor some_q = q.narrow(1, first, count), some_k = k.narrow(1, 0, keys);
      at::Tensor logits = narrow ? grouped_dot_16(some_q.to(x.q.scalar_type()), some_k.to(x.q.scalar_type()))
                                 : grouped_dot(some_q, some_k);
      if (params.c_q == params.c_k && params.aggregate == "sum") {
        causal_block_sums(logits, x.scale, per_q, first, real_q,
                          out.narrow(1, first / per_q, rows).narrow(2, 0, cols));
        return;
      }
      logits.mul_(x.scale);
      at::Tensor i = at::arange(first, first + count, ids).unsqueeze(1),
                 j = at::arange(keys, ids).unsqueeze(0);
      // A composite key is seen by a composite query whose last token is no earlier than its own last token;
      // a query that sees none (c_k > c_q) sees the one that holds its last token.
      at::Tensor end = ((i + 1) * params.c_q).clamp_max(n);
      at::Tensor sees =
          (((j + 1) * params.c_k).clamp_max(n) <= end) | (j == (end - 1).div(params.c_k, "floor"));
      sees = sees & (i < real_q) & (j * params.c_k < n);
      const bool raw = params.aggregate == "mean_logit";
      at::Tensor cells = raw ? logits.masked_fill_(sees.logical_not(), 0) : masked_softmax(logits, sees);
      cells = cells.view({heads, rows, per_q, cols, per_k});
      at::Tensor score = params.aggregate == "max" ? cells.amax({2, 4}) : cells.sum({2, 4});
      if (raw) score = score / sees.view({rows, per_q, cols, per_k}).sum({1, 3}).clamp_min(1);
      out.narrow(1, first / per_q, rows).narrow(2, 0, cols).copy_(score);
    });
    return out;
  }
};

}  // namespace

PREFILL_METHOD(
    UniSparse,
    {.name = "unisparse",
     .doc = "UniSparse-style: attention among averaged tokens and heads, summed to blocks",
     .source = "UniSparse (arXiv 2512.14082). No code is public; only the pooling formulas and the two-stage "
               "outline "
               "were found",
     .deviations =
         "Everything but the pooling is a choice of this project: softmax before aggregation, sums, "
         "visibility "
         "of composite keys, forced blocks, top-p with the crossing block, all default sizes. Not the "
         "authors' method in detail.",
     .cost = "n^2*D/(c_q*c_k*c_h) FLOP per query head (0.2 % of dense at 16, 16, 1) and n^2/(2*c_q*c_k) "
             "exponentials; "
             "pooling reads Q and K once",
     .full_budget = R"({"p": 1.0})",
     .knob = "p",
     .knob_values = {0, 0.5, 0.8, 0.9, 0.98, 1},
     .test_params = R"({"block": 32, "c_q": 8, "c_k": 8})"})

}  // namespace prefill
