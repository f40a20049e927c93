// SpargeAttn: pooled block scores, trusted only where the tokens of a block resemble each other.
#include <ATen/ATen.h>

#include <cmath>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct SpargeParams {
  std::string rule = "topk", semantics = "intended";
  double topk = 0.5, cdf = 0.98, similarity = -0.1;
  int block_q = 128, block_k = 64;
  bool gate = true, smooth_k = true, force_sink = false;
  template <class V>
  void fields(V& v) {
    v("rule", rule, one_of({"topk", "cdf"}),
      "topk: a fixed share of the key blocks (the recommended entry); cdf: mass");
    v("topk", topk, in(0, 1), "rule topk: share of a row's key blocks");
    v("cdf", cdf, in(0, 1), "rule cdf: mass to stay within, crossing block left out (cdfthreshd)");
    v("similarity", similarity, in(-1, 1),
      "mean cosine above which a block counts as uniform (simthreshd1): -0.1 with topk, 0.6 with cdf as "
      "published");
    v("gate", gate, any(), "false: ablation without the similarity gate");
    v("block_q", block_q, in(16, 512), "queries per block (64 on Hopper in the release)");
    v("block_k", block_k, in(16, 512), "keys per block (128 on Hopper in the release)");
    v("smooth_k", smooth_k, any(),
      "subtract the prompt's mean key before pooling; leaves attention unchanged");
    v("force_sink", force_sink, any(), "the first key block is kept (attention_sink)");
    v("semantics", semantics, one_of({"intended", "released"}),
      "released: partial blocks never count as uniform, topk counts future blocks too, scores in the model's "
      "dtype");
  }
  std::string invalid() const {
    return block_q % 16 || block_k % 16 ? "block_q and block_k must be multiples of 16" : "";
  }
};

class Sparge final : public MethodOf<SpargeParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.block_q, params.block_k};
    const at::Tensor causal = causal_tiles(grid, c.qkv.q.device());
    at::Tensor q_uniform, k_uniform, mass, mask;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      at::Tensor k = c.qkv.k;
      if (params.smooth_k) k = smoothed(k);
      q_uniform = uniform(c.qkv.q, params.block_q).unsqueeze(-1);
      k_uniform =
          uniform(k, params.block_k).repeat_interleave(c.qkv.q_heads() / c.qkv.kv_heads(), 0).unsqueeze(1);
      mass = block_mass(c.qkv, k, k_uniform & causal);
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      const at::Tensor all = at::ones({1, 1, 1}, causal.options());
      mask = select_top_count(mass, budgets(mass, causal), released() ? all : causal);
      mask = mask | k_uniform.logical_not() | q_uniform.logical_not();
      if (params.force_sink) mask = mask | forced_tiles(grid, {1, 0, 0}, mask.device());
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  bool released() const { return params.semantics == "released"; }

  at::Tensor smoothed(const at::Tensor& k) const {
    if (released()) return k - k.mean(1, /*keepdim=*/true);
    at::Tensor x = k.to(at::kFloat);
    return x - x.mean(1, /*keepdim=*/true);
  }

  /// Whether the mean of all pairwise cosines of a block exceeds the threshold: bool [H, blocks]. That mean
  /// is the squared length of the mean unit vector, which spares the block's Gram matrix.
  at::Tensor uniform(const at::Tensor& x, int64_t block) const {
    at::Tensor f = x.to(at::kFloat);
    at::Tensor unit = f / f.pow(2).sum(-1, /*keepdim=*/true).sqrt().clamp_min(1e-20);
    if (released()) unit = rounded_to(unit, at::kHalf);
    at::Tensor similar = block_means(unit, block).pow(2).sum(-1) > params.similarity;
    if (!params.gate) return at::ones_like(similar);
    if (released() && x.size(1) % block != 0)
      similar.select(1, similar.size(1) - 1).fill_(false);  // 0/0 in the release
    return similar;
  }

  at::Tensor block_mass(const Qkv& x, const at::Tensor& k, const at::Tensor& candidates) const {
    const at::ScalarType dtype = released() ? x.q.scalar_type() : at::kFloat;
    const at::Tensor qbar = block_means(x.q, params.block_q).to(dtype),
                     kbar = block_means(k, params.block_k).to(dtype);
    at::Tensor logits = grouped_dot(qbar, kbar) * x.scale;
    at::Tensor outside = candidates.logical_not();
    return logits.masked_fill(outside, -INFINITY)
        .softmax(-1)
        .masked_fill(outside, 0);  // in dtype, as the release
  }

  /// Blocks to take per row, [1 or Hq, rows or 1, 1].
  at::Tensor budgets(const at::Tensor& mass, const at::Tensor& causal) const {
    at::Tensor visible = causal.sum(-1, /*keepdim=*/true);
    if (params.rule == "cdf") {
      if (!released() && params.cdf >= 1) return visible;
      at::Tensor sorted = std::get<0>(mass.sort(/*stable=*/true, -1, /*descending=*/true));
      return (sorted.cumsum(-1) <= params.cdf).sum(-1, /*keepdim=*/true).clamp_min(1);
    }
    if (released()) return at::full_like(visible, int64_t(params.topk * double(causal.size(1)))).clamp_min(1);
    return visible.mul(params.topk).ceil().to(at::kLong).clamp_min(1);
  }
};

}  // namespace

PREFILL_METHOD(
    Sparge,
    {.name = "sparge",
     .doc = "SpargeAttn-style: pooled block scores with a similarity gate, top-k share or cumulative mass",
     .source = "SpargeAttn (arXiv 2502.18137), github.com/thu-ml/SpargeAttn, spas_sage_attn/utils.py",
     .deviations =
         "Block selection only: INT8/FP8 arithmetic and the skip of PV inside the kernel (pvthreshd) are not "
         "simulated. The diagonal is kept and masked token by token, where the released spas_sage2 entries "
         "neither force it nor mask it. Under intended topk is a share of the causal blocks.",
     .cost = "one pass over Q and K for means and unit vectors (memory bound), pooled scores "
             "2*(n/block_q)*(n/block_k)*D FLOP per head",
     .full_budget = R"({"topk": 1.0})",
     .knob = "topk",
     .knob_values = {0.05, 0.2, 0.5, 0.8, 1},
     .test_params = R"({"block_q": 32, "block_k": 32})"})

}  // namespace prefill
