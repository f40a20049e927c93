// MInference 1.0: every head has one of three patterns, found offline (vertical-slash, A-shape,
// block-sparse); the last queries of the prompt fill the vertical-slash pattern in.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>

#include "core/method.h"
#include "methods/parts/artifacts.h"
#include "methods/parts/minference_patterns.h"
#include "methods/parts/on_device.h"
#include "methods/parts/tail.h"
#include "methods/parts/vertical_slash.h"

namespace prefill {
namespace {

constexpr int kTile = 64;  // of the released kernels
constexpr int64_t kMostColumnsOnDevice =
    8192;  // lists of columns alone, where the host finds tiles among them

struct MInferenceParams {
  Path pattern_file;
  int64_t vertical = 1000, slash = 6096, last_q = 64, forced_columns = 30, forced_distances = 100,
          block_topk = 100;
  double ratio = 1;
  int64_t starting_layer = 0;
  int q_tile = 128;
  std::string semantics = "intended";
  template <class V>
  void fields(V& v) {
    v("pattern_file", pattern_file, any(),
      "head patterns: a published *_kv_out_*.json, or what `calibrate minference` "
      "wrote; empty: vertical-slash for every head");
    v("vertical", vertical, at_least(0), "columns per head (at least 30) where the file says nothing");
    v("slash", slash, at_least(0), "distances per head (at least 50) where the file says nothing");
    v("ratio", ratio, at_least(0),
      "multiplies columns and distances of every vertical-slash head (minference_ratio)");
    v("last_q", last_q, in(1, 4096), "last queries that vote for columns and distances");
    v("forced_columns", forced_columns, at_least(0), "first keys that count as heaviest");
    v("forced_distances", forced_distances, at_least(1), "smallest distances that count as heaviest");
    v("block_topk", block_topk, at_least(1), "key blocks of 64 per row of a block-sparse head");
    v("starting_layer", starting_layer, at_least(0), "layers before this one are dense");
    v("q_tile", q_tile, in(64, 128),
      "queries that share their keys, 64 or 128: each takes what slashes cross in all of them. 64 computes "
      "fewer pairs, 128 is faster on a GPU; always 64 under released and in layers with block-sparse heads");
    v("semantics", semantics, one_of({"released", "intended"}),
      "rules of the released code, or as they were meant");
  }
  std::string invalid() const { return q_tile == 64 || q_tile == 128 ? "" : "q_tile must be 64 or 128"; }
};

class MInference final : public MethodOf<MInferenceParams> {
 public:
  MInference(MInferenceParams p, MethodEnv e) : MethodOf(std::move(p), std::move(e)) {
    const HeadPattern fallback{HeadPattern::vertical_slash, params.vertical, params.slash};
    if (params.pattern_file.text.empty())
      patterns_.assign(size_t(env.model.layers),
                       std::vector<HeadPattern>(size_t(env.model.q_heads), fallback));
    else
      patterns_ = read_head_patterns(params.pattern_file.text, env.model, fallback);
    for (auto& layer : patterns_) layer = env.own(layer);
  }

  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const int heads = c.qkv.q_heads();
    AttentionPlan plan = AttentionPlan::uniform(heads, {Route::dense, 0});
    if (c.layer < params.starting_layer) return plan;
    const std::vector<HeadPattern>& layer = patterns_.at(size_t(c.layer));
    std::vector<int> lines, blocks;  // heads by kind
    for (int h = 0; h < heads; ++h) {
      const HeadPattern& head = layer.at(size_t(h));
      if (head.kind == HeadPattern::vertical_slash) lines.push_back(h);
      if (head.kind == HeadPattern::block_sparse) blocks.push_back(h);
      if (head.kind == HeadPattern::stream)
        plan.heads[size_t(h)] = window_route(plan, {head.first, head.second, 0});
    }
    // Lists that a GPU makes never leave it. The released index conversion and block-sparse heads go by the
    // host.
    int64_t most = 0;
    for (int h : lines) most = std::max(most, std::min(c.seq_len, columns_of(layer[size_t(h)])));
    if (!lines.empty() && blocks.empty() && !released() && !c.qkv.q.is_cpu() &&
        most <= kMostColumnsOnDevice) {
      add_vertical_slash_on_device(c, layer, lines, most, plan);
      return plan;
    }
    std::vector<HostPattern> patterns;
    const SlashTiles tiles{released() || !blocks.empty() ? kTile : params.q_tile, kTile};
    if (!lines.empty()) add_vertical_slash(c, layer, lines, tiles, plan, patterns);
    if (!blocks.empty()) add_block_sparse(c, blocks, plan, patterns);
    if (patterns.empty()) return plan;
    StageScope stage(c.clock, Stage::index, c.layer);
    plan.tiles = pack_patterns(patterns, tiles.q_tile, tiles.k_tile, 1, c.qkv.q.device(), 1);
    return plan;
  }

 private:
  bool released() const { return params.semantics == "released"; }

  static Route window_route(AttentionPlan& plan, Window w) {
    for (size_t i = 0; i < plan.windows.size(); ++i)
      if (plan.windows[i].sink == w.sink && plan.windows[i].local == w.local)
        return {Route::window, int32_t(i)};
    plan.windows.push_back(w);
    return {Route::window, int32_t(plan.windows.size() - 1)};
  }

  /// The `count` largest of x[0..n), ascending; the first `forced` count as largest of all, nearer ones
  /// first.
  static std::vector<int32_t> heaviest(const float* x, int64_t n, int64_t count, int64_t forced) {
    std::vector<int32_t> ids(static_cast<size_t>(n));
    std::iota(ids.begin(), ids.end(), 0);
    forced = std::min(forced, n);
    count = std::min(count, n);
    if (count > forced)
      std::nth_element(ids.begin() + forced, ids.begin() + count - (count == n), ids.end(),
                       [x](int32_t a, int32_t b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
    ids.resize(size_t(count));
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  int64_t columns_of(const HeadPattern& p) const {
    return std::max<int64_t>(int64_t(double(p.first) * params.ratio), 30);
  }
  int64_t distances_of(const HeadPattern& p) const {
    return std::max<int64_t>(int64_t(double(p.second) * params.ratio), 50);
  }

  void add_vertical_slash_on_device(const LayerContext& c, const std::vector<HeadPattern>& layer,
                                    const std::vector<int>& heads, int64_t most, AttentionPlan& plan) const {
    const int64_t n = c.seq_len;
    std::vector<int64_t> which, columns, distances;
    for (int h : heads) {
      which.push_back(h);
      columns.push_back(std::min(n, columns_of(layer[size_t(h)])));
      distances.push_back(std::min(n, distances_of(layer[size_t(h)])));
      plan.heads[size_t(h)] = {Route::tiles, int32_t(which.size() - 1)};
    }
    const at::Device device = c.qkv.q.device();
    at::Tensor vertical, slash;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      std::tie(vertical, slash) = c.backend.tail_sums(c.qkv, std::min(params.last_q, n));
    }
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      auto best = [&](const at::Tensor& sums, int64_t forced, const std::vector<int64_t>& counts) {
        const bool all = int64_t(which.size()) == sums.size(0);
        const at::Tensor x = all ? sums : sums.index_select(0, on_device(which, device));
        return top_counts(at::nan_to_num(x), on_device(counts, device), forced);
      };
      vertical = best(vertical, params.forced_columns, columns);
      slash = best(slash, params.forced_distances, distances);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    plan.tiles = cover_vertical_slash(vertical, slash, most, {params.q_tile, kTile});
  }

  void add_vertical_slash(const LayerContext& c, const std::vector<HeadPattern>& layer,
                          const std::vector<int>& heads, SlashTiles tiles, AttentionPlan& plan,
                          std::vector<HostPattern>& patterns) const {
    const int64_t n = c.seq_len;
    at::Tensor vertical, slash;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      std::tie(vertical, slash) = c.backend.tail_sums(c.qkv, std::min(params.last_q, n));
      // NaN (broken weights) would break the selection's ordering.
      vertical = at::nan_to_num(vertical).to(at::kCPU).contiguous();
      slash = at::nan_to_num(slash).to(at::kCPU).contiguous();
    }
    std::vector<VerticalSlash> chosen(heads.size());
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      at::parallel_for(0, int64_t(heads.size()), 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) {
          const int h = heads[size_t(i)];
          const HeadPattern& head = layer[size_t(h)];
          chosen[size_t(i)] = {
              heaviest(vertical.data_ptr<float>() + h * n, n, columns_of(head), params.forced_columns),
              heaviest(slash.data_ptr<float>() + h * n, n, distances_of(head), params.forced_distances)};
        }
      });
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    patterns.resize(heads.size());
    for (size_t i = 0; i < heads.size(); ++i) plan.heads[size_t(heads[i])] = {Route::tiles, int32_t(i)};
    at::parallel_for(0, int64_t(heads.size()), 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i)
        patterns[size_t(i)] = released() ? cover_vertical_slash_released(chosen[size_t(i)], n)
                                         : cover_vertical_slash(chosen[size_t(i)], tiles, n);
    });
  }

  /// Rows of 64 queries take the key blocks of 64 whose mean key has the largest product with their mean
  /// query.
  void add_block_sparse(const LayerContext& c, const std::vector<int>& heads, AttentionPlan& plan,
                        std::vector<HostPattern>& patterns) const {
    const int64_t n = c.seq_len, rows = (n + kTile - 1) / kTile, group = c.qkv.q_heads() / c.qkv.kv_heads();
    const int64_t keep = std::min<int64_t>(rows, params.block_topk);
    at::Tensor scores;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      std::vector<int64_t> kv;
      for (int h : heads) kv.push_back(h / group);
      const at::Tensor q =
          c.backend.pool_mean(c.qkv.q.index_select(0, on_device(heads, c.qkv.q.device())), kTile);
      at::Tensor k = c.backend.pool_mean(c.qkv.k, kTile);
      // Released: the last block is padded with zero keys, which pulls its mean towards zero.
      if (released() && n % kTile != 0) k.select(1, rows - 1).mul_(double(n % kTile) / kTile);
      k = k.index_select(0, on_device(kv, c.qkv.q.device()));
      scores = at::nan_to_num(at::matmul(q, k.transpose(1, 2))).to(at::kCPU).contiguous();
    }
    StageScope stage(c.clock, Stage::select, c.layer);
    const size_t base = patterns.size();
    patterns.resize(base + heads.size());
    for (size_t i = 0; i < heads.size(); ++i)
      plan.heads[size_t(heads[i])] = {Route::tiles, int32_t(base + i)};
    at::parallel_for(0, int64_t(heads.size()), 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i)
        for (int64_t r = 0; r < rows; ++r) {
          HostPattern& p = patterns[base + size_t(i)];
          const float* row = scores.data_ptr<float>() + (i * rows + r) * rows;
          std::vector<int32_t> ids = heaviest(row, r + 1, keep, 0);
          // The plan needs the diagonal tile; where it was not among the chosen it comes on top.
          if (ids.back() != int32_t(r)) ids.push_back(int32_t(r));
          for (int32_t id : ids)
            p.tile_idx.push_back(id * kTile);  // a plan's tiles are named by their first key
          p.end_row();
          p.end_group();
        }
    });
  }

  std::vector<std::vector<HeadPattern>> patterns_;  // [layers][q_heads]
};

}  // namespace

PREFILL_METHOD(
    MInference,
    {.name = "minference",
     .version = 2,
     .doc = "per-head vertical-slash, A-shape or block-sparse patterns, found offline, filled in from the "
            "last queries",
     .source =
         "Jiang et al., arXiv 2407.02490; repository microsoft/MInference. The default for heads without a "
         "pattern is the code's own (1000 columns, 6096 distances), made for 128K tokens: set `ratio`, "
         "`vertical` and `slash`, or calibrate, for shorter prompts",
     .deviations =
         "Columns and distances are chosen alike under both semantics (float32 logits; equal sums "
         "go to the smaller "
         "index; of several forced distances the smaller first). released: computes exactly the "
         "keys of the code's "
         "64-wide ranges, which start anywhere and over-cover by up to 63 keys where slashes "
         "merge. intended: every "
         "key of the chosen columns and distances, slashes by tiles of 64 keys that start anywhere, too, "
         "for q_tile queries at a time. Block-sparse "
         "heads: the diagonal block is always computed (the code may leave it out); released "
         "scores the last, partial "
         "key block by a mean that counts its padding",
     .cost = "2*last_q*n*D*Hq FLOP for the tail, two selections of n per head; index O(n/q_tile * (columns + "
             "n/64)) "
             "per head (released: and distances, on the host, to which a GPU copies the two [Hq,n] sums)",
     .full_budget = R"({"slash": 1000000000})",
     .knob = "ratio",
     .knob_values = {0.0, 0.5, 1.0, 2.0, 5.0, 10.0},
     .test_params = R"({"vertical": 40, "slash": 60, "forced_distances": 20})"})

}  // namespace prefill
