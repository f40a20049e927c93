// Prism: mean pooling blurs the fast-turning half of a rotary embedding away, so fast and slow dimensions are
// scored apart, each brought back to full scale, and each picks its own blocks.
#include <ATen/ATen.h>

#include <cmath>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct PrismParams {
  double p = 0.95, p_high = -1, p_low = -1, temp_high = 1, temp_low = 1;
  int block = 128, d_high = 0, d_low = 0;
  bool calibrate = true, force_sink = true;
  std::string bands = "both", combine = "union", energy = "head", pool_tail = "padded", path = "fused",
              semantics = "intended";
  template <class V>
  void fields(V& v) {
    v("p", p, in(0, 1),
      "share of its own mass that each band covers. Published 0.95 (Llama-3.1-8B), 0.93 (Qwen3)");
    v("p_high", p_high, in(-1, 1), "the same for the high-frequency band alone; negative: p");
    v("p_low", p_low, in(-1, 1), "the same for the low-frequency band alone; negative: p");
    v("block", block, in(16, 512), "queries and keys per block");
    v("d_high", d_high, in(0, 512),
      "dimensions of the high band, even; 0: head_dim / 2 (64 of 128 as published)");
    v("d_low", d_low, in(0, 512),
      "dimensions of the low band, even; 0: 3/4 of head_dim (96 of 128 as published)");
    v("calibrate", calibrate, any(), "scale each band's logits to the energy of the whole");
    v("temp_high", temp_high, in(1e-3, 1e3), "temperature of the high band when calibrate is off");
    v("temp_low", temp_low, in(1e-3, 1e3), "temperature of the low band when calibrate is off");
    v("force_sink", force_sink, any(),
      "the first key block is kept, outside the budget (the diagonal one always is)");
    v("bands", bands, one_of({"both", "high", "low", "full"}),
      "ablation: which bands vote; full: one band of all dims");
    v("combine", combine, one_of({"union", "mean"}),
      "ablation: union of the bands' sets, or one set of the mean mass");
    v("energy", energy, one_of({"head", "row"}),
      "ablation: query energy per head (released) or per query block");
    v("pool_tail", pool_tail, one_of({"padded", "count"}),
      "a partial last block's sum is divided by block or by count");
    v("path", path, one_of({"fused", "torch"}),
      "released only: the fused kernels' tie bias, or the torch fallback");
    v("semantics", semantics, one_of({"intended", "released"}),
      "released: pooling, energies and temperatures in the model's dtype; intended: float32");
  }
  std::string invalid() const {
    if (block % 16) return "block must be a multiple of 16";
    if (d_high % 2 || d_low % 2) return "d_high and d_low must be even";
    return "";
  }
};

class Prism final : public MethodOf<PrismParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.block, params.block};
    const at::Tensor causal = causal_tiles(grid, c.qkv.q.device());
    std::vector<Mass> bands;
    at::Tensor mask;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      bands = score(c.qkv, causal);
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      if (params.combine == "mean" && bands.size() == 2)
        bands = {{(bands[0].mass + bands[1].mass) / 2, params.p}};
      for (const Mass& b : bands) {
        at::Tensor picked = biased() ? with_tie_bias(b, causal) : select_top_p(b.mass, {b.target}, causal);
        mask = mask.defined() ? mask | picked : picked;
      }
      if (params.force_sink) mask = mask | forced_tiles(grid, {1, 0, 0}, mask.device());
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  struct Mass {
    at::Tensor mass;  // [Hq, rows, cols] float32, rows sum to 1
    double target;
  };
  bool released() const { return params.semantics == "released"; }
  bool biased() const { return released() && params.path == "fused"; }

  /// Pairs [from, to) of a half-split rotary embedding: dimensions j and j + D/2.
  static at::Tensor pairs(const at::Tensor& x, int64_t from, int64_t to) {
    const int64_t half = x.size(-1) / 2;
    return at::cat({x.narrow(-1, from, to - from), x.narrow(-1, half + from, to - from)}, -1);
  }

  std::vector<Mass> score(const Qkv& x, const at::Tensor& causal) const {
    const int64_t dim = x.head_dim(), half = dim / 2;
    const int64_t high = (params.d_high ? params.d_high : dim / 2) / 2;
    const int64_t low = (params.d_low ? params.d_low : (3 * dim / 4 + 8) / 16 * 16) / 2;
    if (high > half || low > half)
      throw Unsupported(str("prism: d_high and d_low may not exceed head_dim ", dim));
    const TailMean tail = params.pool_tail == "padded" ? TailMean::over_block : TailMean::over_count;
    const at::ScalarType dtype = released() ? x.q.scalar_type() : at::kFloat;
    const at::Tensor q = block_means(x.q, params.block, tail).to(dtype);
    const at::Tensor k = block_means(x.k, params.block, tail).to(dtype);
    const double p_high = params.p_high < 0 ? params.p : params.p_high,
                 p_low = params.p_low < 0 ? params.p : params.p_low;
    std::vector<Mass> out;
    if (params.bands == "full") out.push_back({band(x, q, k, 0, half, 1, causal), params.p});
    if (params.bands == "both" || params.bands == "high")
      out.push_back({band(x, q, k, 0, high, params.temp_high, causal), p_high});
    if (params.bands == "both" || params.bands == "low")
      out.push_back({band(x, q, k, half - low, half, params.temp_low, causal), p_low});
    return out;
  }

  /// Root mean square over channels and, unless energies are per row, over blocks; in x's dtype.
  at::Tensor rms(const at::Tensor& x, bool per_row) const {
    return per_row ? x.pow(2).mean({-1}, true).sqrt() : x.pow(2).mean({-2, -1}, true).sqrt();
  }

  at::Tensor band(const Qkv& x, const at::Tensor& q, const at::Tensor& k, int64_t from, int64_t to,
                  double temp, const at::Tensor& causal) const {
    const int64_t dim = x.head_dim(), size = 2 * (to - from), group = x.q_heads() / x.kv_heads();
    const at::Tensor qz = pairs(q, from, to), kz = pairs(k, from, to);
    at::Tensor divisor = at::full({1, 1, 1}, std::sqrt(double(size)) * temp, q.options());
    if (params.calibrate) {
      const bool per_row = params.energy == "row";
      at::Tensor q_share = rms(qz, per_row) / rms(q, per_row).clamp_min(1e-6);
      at::Tensor k_share = (rms(kz, false) / rms(k, false).clamp_min(1e-6)).repeat_interleave(group, 0);
      at::Tensor tau = std::sqrt(double(size) / double(dim)) * q_share * k_share;
      divisor = std::sqrt(double(size)) * tau;
      // sqrt(size) * tau = sqrt(dim) * shares of the norms: a scale other than 1/sqrt(dim) enters here.
      divisor = divisor * (1 / (x.scale * std::sqrt(double(dim))));
    }
    at::Tensor logits;
    if (released() && params.path == "torch")
      logits = (grouped_dot(qz, kz) / divisor).to(at::kFloat);
    else
      logits = grouped_dot(qz.to(at::kFloat), kz.to(at::kFloat)) / divisor.to(at::kFloat);
    return masked_softmax(logits, causal);
  }

  /// The fused selector: values fall by 1e-9 per column, then all that reach the smallest kept one are kept.
  at::Tensor with_tie_bias(const Mass& b, const at::Tensor& causal) const {
    at::Tensor key = b.mass - at::arange(b.mass.size(-1), b.mass.options()) * 1e-9;
    at::Tensor sorted = std::get<0>(key.sort(/*stable=*/true, -1, /*descending=*/true));
    at::Tensor kept = (sorted.cumsum(-1) - sorted) < b.target;
    at::Tensor least = sorted.masked_fill(kept.logical_not(), 2).amin(-1, /*keepdim=*/true);
    return (key >= least) & causal;
  }
};

}  // namespace

PREFILL_METHOD(
    Prism,
    {.name = "prism",
     .doc =
         "pooled scores of fast and slow rotary dimensions apart, each calibrated, union of both top-p sets",
     .source = "Prism (arXiv 2602.08426), github.com/xinghaow99/prism, prism/prism.py and prism/kernels",
     .deviations =
         "A target of 1 keeps every causal block. For head dims other than 128 the bands scale as 1/2 and "
         "3/4 "
         "of the dimensions. Half-split rotary layout only. bands, combine and energy are ablations.",
     .cost = "pooling reads Q and K once, which is the whole cost; scores (n/block)^2*(d_high + d_low) FLOP "
             "per head, "
             "below 0.02 % of dense",
     .full_budget = R"({"p": 1.0})",
     .knob = "p",
     .knob_values = {0.2, 0.6, 0.9, 0.95, 0.99, 1},
     .test_params = R"({"block": 32})"})

}  // namespace prefill
