// XAttention: antidiagonal sums of strided tokens score the blocks, a cumulative threshold chooses them.
#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "core/method.h"
#include "methods/parts/head_table.h"
#include "methods/parts/on_device.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct XAttentionParams {
  int stride = 16, block = 128;
  double threshold = 0.9, norm = 1, ratio = 0.25;
  Path thresholds;
  std::string mode = "antidiagonal", rule = "threshold", path = "fused", semantics = "intended";
  int64_t top_k = 16, chunk = 0, seed = 1;
  bool force_sink = true, force_recent = true;
  template <class V>
  void fields(V& v) {
    v("stride", stride, in(1, 128),
      "tokens per group; the estimate costs 1/stride of QK. Published 8 and 16 (also 4, 64)");
    v("threshold", threshold, in(0, 1),
      "share of a row's estimated mass to cover (0.9 in its estimator, 0.8 in its prefill)");
    v("thresholds", thresholds, any(),
      "one threshold per layer and head instead: what `calibrate xattention` wrote, the released "
      "llama_threshold.py "
      "(the list for this stride), or a JSON list of lists");
    v("norm", norm, in(1e-3, 1e3), "extra divisor of the logits");
    v("block", block, in(16, 512), "queries and keys per block; 128 in the release");
    v("mode", mode, one_of({"antidiagonal", "diagonal", "random", "double", "triple"}),
      "ablation: which products of a stride x stride square are summed (select_mode: inverse, slash, random, "
      "...)");
    v("rule", rule, one_of({"threshold", "top_k", "ratio"}), "ablation: how masses become a set");
    v("top_k", top_k, at_least(1), "rule top_k: key blocks per row, forced ones included");
    v("ratio", ratio, in(0, 1), "rule ratio: share of each row's causal blocks to keep");
    v("force_sink", force_sink, any(), "the first key block is kept and its mass counts first");
    v("force_recent", force_recent, any(), "the diagonal block's mass counts first (it is kept in any case)");
    v("seed", seed, at_least(0), "mode random: the permutation");
    v("semantics", semantics, one_of({"intended", "released"}),
      "released: in the first chunk the sink block competes like any other and the running sum lags one "
      "block; masses "
      "in the model's dtype");
    v("path", path, one_of({"fused", "torch"}),
      "released only: the fused path (A100, H100), or the fallback of every other GPU with its padding bug");
    v("chunk", chunk, at_least(0),
      "released only: queries scored at once; 0: its rule, 2048 at 128K to all at 16K");
  }
  std::string invalid() const {
    if (block % stride) return "block must be a multiple of stride";
    if (block % 16) return "block must be a multiple of 16";
    if (chunk % block) return "chunk must be a multiple of block";
    if (path == "torch" && semantics != "released") return "path torch is a variant of semantics released";
    if (semantics == "released" && (rule != "threshold" || !force_sink || !force_recent))
      return "rule and forced blocks can be changed under semantics intended only";
    return "";
  }
};

class XAttention final : public MethodOf<XAttentionParams> {
 public:
  XAttention(XAttentionParams p, MethodEnv e) : MethodOf(std::move(p), std::move(e)) {
    if (!params.thresholds.text.empty())
      table_ = read_head_table(params.thresholds.text, std::to_string(params.stride), "xattention", env.model,
                               {{"stride", params.stride}, {"block", params.block}});
    if (table_)
      for (auto& layer : table_->rows) layer = env.own(layer);
  }

  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const TileGrid grid{c.seq_len, params.block, params.block};
    at::Tensor mass, mask;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      mass = antidiagonal_mass(c.qkv.q, c.qkv.k, c.qkv.scale, params.block, scoring(c));
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      mask = released() ? released_selection(mass, grid, targets(c)) : selection(mass, grid, targets(c));
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    return plan_from_mask(mask, grid, c.qkv.q_heads());
  }

 private:
  bool released() const { return params.semantics == "released"; }

  std::vector<double> targets(const LayerContext& c) const {
    return table_ ? table_->layer(c.layer) : std::vector<double>(size_t(c.qkv.q_heads()), params.threshold);
  }

  /// Tokens that the release scores at once (6.1 of the method sheet): shorter chunks for longer prompts.
  int64_t chunk(int64_t n) const {
    if (params.chunk > 0) return params.chunk;
    const int64_t power = int64_t(std::bit_ceil(uint64_t(n)));
    return std::max<int64_t>(std::min(std::max<int64_t>(2048, power), (int64_t(1) << 28) / power), 2048);
  }

  AntidiagonalOptions scoring(const LayerContext& c) const {
    AntidiagonalOptions o{
        .stride = params.stride, .mode = params.mode, .norm = params.norm, .seed = uint64_t(params.seed)};
    if (!released()) return o;
    o.keep = c.qkv.q.scalar_type();
    if (params.path == "torch") {
      o.round_every_step = true;
      const int64_t size = chunk(c.seq_len), padding = (size - c.seq_len % size) % size;
      if (padding < params.stride) o.own_chunk = size;  // its mask slice [-0:] hides every other chunk
    }
    return o;
  }

  at::Tensor selection(const at::Tensor& mass, const TileGrid& grid, const std::vector<double>& p) const {
    const at::Tensor causal = causal_tiles(grid, mass.device());
    const at::Tensor forced =
        forced_tiles(grid, {params.force_sink ? 1 : 0, params.force_recent ? 1 : 0, 0}, mass.device());
    if (params.rule == "top_k") return select_top_k(mass, params.top_k, causal, forced);
    if (params.rule == "ratio") {
      at::Tensor budget = causal.sum(-1, /*keepdim=*/true).mul(params.ratio).ceil().to(at::kLong);
      return select_top_count(mass, budget, causal, forced);
    }
    return select_top_p(mass, p, causal, forced);
  }

  at::Tensor released_selection(const at::Tensor& mass, const TileGrid& grid,
                                const std::vector<double>& p) const {
    const at::Tensor causal = causal_tiles(grid, mass.device());
    const at::Tensor diagonal = forced_tiles(grid, {0, 1, 0}, mass.device());
    const at::Tensor both = forced_tiles(grid, {1, 1, 0}, mass.device());
    const int64_t lagging = std::min(grid.rows(), chunk(grid.n) / params.block);
    // First chunk: the diagonal leads alone, then the running sum of the blocks before is one block behind.
    at::Tensor order = mass.masked_fill(diagonal, 1e30).argsort(/*stable=*/true, -1, /*descending=*/true);
    at::Tensor sorted = mass.to(at::kDouble).gather(-1, order);
    at::Tensor before = at::constant_pad_nd(sorted.cumsum(-1), {2, 0}).narrow(-1, 0, grid.cols());
    at::Tensor share = on_device(p, mass.device()).view({-1, 1, 1});
    at::Tensor keep = before < sorted.sum(-1, /*keepdim=*/true) * share;
    at::Tensor first = (at::zeros_like(keep).scatter(-1, order, keep) | both) & causal;
    at::Tensor later = select_top_p(mass, p, causal, both);
    return at::cat({first.narrow(1, 0, lagging), later.narrow(1, lagging, grid.rows() - lagging)}, 1);
  }

  std::optional<HeadTable> table_;
};

}  // namespace

PREFILL_METHOD(
    XAttention,
    {.name = "xattention",
     .doc = "blocks by antidiagonal sums of strided tokens and a cumulative threshold",
     .source = "XAttention (arXiv 2503.16428), github.com/mit-han-lab/x-attention, xattn/src/Xattention.py, "
               "utils.py",
     .deviations =
         "keep_sink and keep_recent of the release change nothing after its causal mask and are not "
         "parameters; kdb (query subsampling of its torch path) is left out; a threshold of 1 keeps every "
         "block under intended. Rules top_k and ratio and the two force switches are ablations.",
     .cost = "n^2*D/stride FLOP per query head, 1/(2*stride) of dense: 6.3 % at stride 8, 3.1 % at 16, plus "
             "(n/stride)^2/2 exponentials; the lower triangle is computed in bands, short prompts in one "
             "band that "
             "costs twice that",
     .full_budget = R"({"threshold": 1.0})",
     .knob = "threshold",
     .knob_values = {0, 0.3, 0.6, 0.9, 0.99, 1},
     .test_params = R"({"block": 32, "stride": 8})"})

}  // namespace prefill
