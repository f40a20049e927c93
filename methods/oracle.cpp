// The bound from above: the tiles that hold most of the true attention, at a density one asks for. It
// computes the whole attention to know them, so its time says nothing; its accuracy says what selection could
// reach.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "core/method.h"
#include "methods/parts/host_pattern.h"

namespace prefill {
namespace {

struct OracleParams {
  double density = 0.25;
  int tile = 64;
  std::string budget = "head";
  template <class V>
  void fields(V& v) {
    v("density", density, in(0, 1),
      "causal pairs to compute / all causal pairs (the diagonal, which is always kept, included)");
    v("tile", tile, in(16, 512), "queries and keys per tile");
    v("budget", budget, one_of({"head", "row"}),
      "head: the best tiles of the whole head; row: each row the same share of its own pairs");
  }
  std::string invalid() const { return {}; }
};

class Oracle final : public MethodOf<OracleParams> {
 public:
  using MethodOf::MethodOf;

  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    const int heads = c.qkv.q_heads();
    at::Tensor mass;  // [Hq, rows, tiles] mean probability per query of the row
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      AttentionPlan all = AttentionPlan::uniform(heads, {Route::dense, 0});
      all.tiles.q_tile = all.tiles.k_tile = params.tile;
      all.want_tile_mean.assign(size_t(heads), 1);
      mass = c.backend.attend(c.qkv, all).tile_mean.to(at::kCPU).contiguous();
    }
    StageScope stage(c.clock, Stage::select, c.layer);
    std::vector<HostPattern> patterns(static_cast<size_t>(heads));
    const int64_t cells = mass.size(1) * mass.size(2);
    at::parallel_for(0, heads, 1, [&](int64_t from, int64_t to) {
      for (int64_t h = from; h < to; ++h)
        patterns[size_t(h)] = best(mass.const_data_ptr<float>() + h * cells, c.seq_len);
    });
    AttentionPlan plan = AttentionPlan::uniform(heads, {Route::tiles, 0});
    for (int h = 0; h < heads; ++h) plan.heads[size_t(h)].index = h;
    plan.tiles = pack_patterns(patterns, params.tile, params.tile, 0, c.qkv.q.device());
    return plan;
  }

 private:
  struct Tile {
    int32_t row, key;
    float worth;  ///< attention per pair computed
    int64_t pairs;
  };

  HostPattern best(const float* mass, int64_t n) const {
    const int64_t rows = (n + params.tile - 1) / params.tile;
    std::vector<uint8_t> keep(size_t(rows * rows), 0);
    std::vector<Tile> open;
    double budget = 0;
    auto spend =
        [&] {  // best first while the next tile fits by half or more, so that the mean density is met
          std::sort(open.begin(), open.end(), [](const Tile& a, const Tile& b) {
            return a.worth != b.worth ? a.worth > b.worth : a.row != b.row ? a.row < b.row : a.key < b.key;
          });
          for (const Tile& t : open) {
            if (budget < double(t.pairs) / 2) break;
            budget -= double(t.pairs);
            keep[size_t(t.row * rows + t.key)] = 1;
          }
          open.clear();
        };
    for (int64_t r = 0; r < rows; ++r) {
      const auto queries = double(std::min<int64_t>(n, (r + 1) * params.tile) - r * params.tile);
      budget += params.density * double(row_pairs(r, params.tile, n)) -
                double(visible_pairs(r, r, params.tile, params.tile, n));
      keep[size_t(r * rows + r)] = 1;
      for (int64_t t = 0; t < r; ++t) {
        const int64_t pairs = visible_pairs(r, t, params.tile, params.tile, n);
        open.push_back({int32_t(r), int32_t(t), float(mass[r * rows + t] * queries / double(pairs)), pairs});
      }
      if (params.budget == "row") spend();
    }
    if (params.budget == "head") spend();
    HostPattern p;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t t = 0; t <= r; ++t)
        if (keep[size_t(r * rows + t)]) p.tile_idx.push_back(int32_t(t));
      p.end_row();
    }
    return p;
  }
};

}  // namespace

PREFILL_METHOD(
    Oracle,
    {.name = "oracle",
     .doc = "the tiles with most of the true attention, at a given density: what no tile method can exceed",
     .source = "control of this project; no paper",
     .deviations =
         "a bound, not a method: the selection reads the full attention, so its time means nothing. "
         "It bounds attention mass per head, which is not always the score of a task",
     .cost = "dense attention and a second pass over QK for the tile masses; a sort of (n/tile)^2/2 per head "
             "on the host",
     .full_budget = R"({"density": 1.0})",
     .knob = "density",
     .knob_values = {0.05, 0.2, 0.5, 0.8, 1.0}})

}  // namespace prefill
