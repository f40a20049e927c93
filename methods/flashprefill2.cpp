// FlashPrefill V2: one selection per key/value head for a packed tile of its query heads, first-token
// visibility, and a mean correction that stands in for the blocks that were left out.
#include <ATen/ATen.h>

#include "core/method.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"

namespace prefill {
namespace {

struct FlashPrefill2Params {
  int packed_rows = 128, block = 128;
  double alpha = 0.1;
  int64_t sink = 2, window = 4, last = 2, min_sparse_len = 0;
  int dense_layers = 0;
  bool mean_correction = true, per_kv_head = true;
  std::string sees = "first_token";
  template <class V>
  void fields(V& v) {
    v("alpha", alpha, in(0, 1),
      "keep blocks whose energy is at least alpha times the row's largest. Published 0.1 for all models "
      "(default "
      "here); the shipped op defaults to 1.0, which keeps the best block only");
    v("block", block, in(64, 512),
      "keys per selection block (k_block_n); published 128, shipped op default 64");
    v("packed_rows", packed_rows, in(16, 512),
      "query rows per tile, counting every query head of a key/value head (k_block_m): the tile serves "
      "packed_rows / group tokens");
    v("sink", sink, at_least(0), "first key blocks that are always kept (attention_sink)");
    v("window", window, at_least(1), "last key blocks that are always kept (window_size)");
    v("last", last, at_least(0),
      "last query tiles that keep everything (last_n_blocks; 8 in its SGLang launch)");
    v("min_sparse_len", min_sparse_len, at_least(0),
      "prompts up to this length run dense (4096 in its SGLang server)");
    v("dense_layers", dense_layers, at_least(0),
      "first layers that run dense (full_attention_layers; 4 in SGLang)");
    v("mean_correction", mean_correction, any(),
      "one pooled key and value for each block left out (shipped: off)");
    v("per_kv_head", per_kv_head, any(), "false: ablation with one selection per query head");
    v("sees", sees, one_of({"first_token", "last_token"}),
      "ablation: which queries score a block (v1: last_token)");
  }
  std::string invalid() const { return block % 64 ? "block must be a multiple of 64" : ""; }
};

class FlashPrefill2 final : public MethodOf<FlashPrefill2Params> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const int q_heads = c.qkv.q_heads();
    if (c.layer < params.dense_layers || c.seq_len <= params.min_sparse_len)
      return AttentionPlan::uniform(q_heads, {Route::dense, 0});
    const TileGrid grid{c.seq_len, tokens_per_tile(q_heads / c.qkv.kv_heads()), params.block};
    at::Tensor kbar, energy, mask;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      kbar = block_means(c.qkv.k, params.block).to(c.qkv.k.scalar_type());
      energy = tile_energy(c.qkv.q, kbar, c.qkv.scale, grid,
                           {.sees = params.sees == "first_token" ? Sees::first_token : Sees::last_token,
                            .per_kv_head = params.per_kv_head});
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      mask = select(energy, grid);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    AttentionPlan plan = plan_from_mask(mask, grid, q_heads);
    if (params.mean_correction)
      plan.complement =
          PooledComplement{params.block, kbar, block_means(c.qkv.v, params.block).to(c.qkv.v.scalar_type())};
    return plan;
  }

 private:
  /// packed_rows / group tokens, as a power of two so that kernels have a tile for it.
  int tokens_per_tile(int group) const {
    int tokens = 16;
    while (tokens * 2 * group <= params.packed_rows) tokens *= 2;
    return tokens;
  }

  at::Tensor select(at::Tensor energy, const TileGrid& grid) const {
    const at::Device device = energy.device();
    const auto ids = at::TensorOptions().dtype(at::kLong).device(device);
    const at::Tensor causal = causal_tiles(grid, device);
    // Only blocks that are complete by the tile's last query have a score; a cut one lives by the window.
    at::Tensor row_end = ((at::arange(grid.rows(), ids).unsqueeze(1) + 1) * grid.q_tile).clamp_max(grid.n);
    at::Tensor block_end = (at::arange(grid.cols(), ids).unsqueeze(0) + 1) * grid.k_tile;
    at::Tensor scored = block_end <= row_end;
    const at::Tensor forced = forced_tiles(grid, {params.sink, params.window, params.last}, device);
    return select_max_ratio(energy.masked_fill(scored.logical_not(), 0), params.alpha, causal & scored) |
           forced;
  }
};

}  // namespace

PREFILL_METHOD(
    FlashPrefill2,
    {.name = "flashprefill2",
     .doc =
         "FlashPrefill V2: selection per key/value head on packed tiles, mean correction of what is left out",
     .source = "FlashPrefill V2 (arXiv 2608.19758), github.com/qhfan/FlashPrefillv2, "
               "flashprefill_ops/flash_block_sparse_index_triton.py",
     .deviations =
         "A tile serves the largest power of two of tokens that fits packed_rows / group (at least 16), "
         "where "
         "the release cuts tiles in the middle of a token's heads if the group does not divide 128: group 3 "
         "gets 32 tokens (96 rows). Paged caches and FP8 are outside this project.",
     .cost = "2*n*(n/block)*D/2 FLOP per query head (0.4 % of dense at block 128) and as many exponentials "
             "as v1; the "
             "correction adds 4*n*(n/block)*D/2 FLOP per head at most to attention",
     .full_budget = R"({"alpha": 0})",
     .knob = "alpha",
     .knob_values = {1, 0.7, 0.1, 0.02, 0},
     .test_params = R"({"block": 64, "packed_rows": 64, "sink": 1, "window": 1, "last": 0})"})

}  // namespace prefill
