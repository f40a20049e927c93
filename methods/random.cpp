// The null hypothesis: tiles drawn at random, at a density one asks for. A method that does not beat this at
// equal density has learnt nothing from the prompt.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/method.h"
#include "methods/parts/host_pattern.h"

namespace prefill {
namespace {

struct RandomParams {
  double density = 0.25;
  int tile = 64, sink_tiles = 1;
  int64_t seed = 1;
  template <class V>
  void fields(V& v) {
    v("density", density, in(0, 1),
      "causal pairs to compute / all causal pairs (tiles that are always kept included)");
    v("tile", tile, in(16, 512), "queries and keys per tile");
    v("sink_tiles", sink_tiles, at_least(0), "first key tiles that every row keeps");
    v("seed", seed, at_least(0), "draws differ by seed, layer, head and row");
  }
  std::string invalid() const { return {}; }
};

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the same draws on every platform.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : s_(seed) {}
  uint64_t next() {
    uint64_t z = (s_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  /// Uniform below `bound`; the bias of 2^-32 * bound does not matter for drawing tiles.
  uint64_t below(uint64_t bound) { return ((next() >> 32) * bound) >> 32; }

 private:
  uint64_t s_;
};

class Random final : public MethodOf<RandomParams> {
 public:
  using MethodOf::MethodOf;
  AttentionPlan plan_layer(const LayerContext& c, State&) const override {
    StageScope stage(c.clock, Stage::index, c.layer);
    const int heads = c.qkv.q_heads();
    std::vector<HostPattern> patterns(static_cast<size_t>(heads));
    at::parallel_for(0, heads, 1, [&](int64_t from, int64_t to) {
      for (int64_t h = from; h < to; ++h) patterns[size_t(h)] = draw(c.layer, env.heads.first + h, c.seq_len);
    });
    AttentionPlan plan = AttentionPlan::uniform(heads, {Route::tiles, 0});
    for (int h = 0; h < heads; ++h) plan.heads[size_t(h)].index = h;
    plan.tiles = pack_patterns(patterns, params.tile, params.tile, 0, c.qkv.q.device());
    return plan;
  }

 private:
  /// Each row gets `density` of its own pairs; what forced tiles overdraw or rounding leaves over is carried
  /// to the next row, so that the head as a whole meets the density to within a tile.
  HostPattern draw(int layer, int64_t head, int64_t n) const {
    const int64_t rows = (n + params.tile - 1) / params.tile;
    HostPattern p;
    std::vector<int32_t> free_tiles;
    double balance = 0;  // pairs
    for (int64_t r = 0; r < rows; ++r) {
      SplitMix mix(uint64_t(params.seed));
      for (uint64_t part : {uint64_t(layer), uint64_t(head), uint64_t(r)}) mix = SplitMix(mix.next() ^ part);
      const int64_t sinks = std::min<int64_t>(params.sink_tiles, r);
      balance += params.density * double(row_pairs(r, params.tile, n));
      for (int64_t t = 0; t < sinks; ++t) balance -= double(visible_pairs(r, t, params.tile, params.tile, n));
      balance -= double(visible_pairs(r, r, params.tile, params.tile, n));
      const double one =
          double(visible_pairs(r, sinks, params.tile, params.tile, n));  // any tile before the diagonal
      const int64_t open = r - sinks;
      const int64_t take = open > 0 ? std::clamp<int64_t>(std::llround(balance / one), 0, open) : 0;
      balance -= double(take) * one;

      free_tiles.resize(size_t(open));
      std::iota(free_tiles.begin(), free_tiles.end(), int32_t(sinks));
      for (int64_t i = 0; i < take; ++i)
        std::swap(free_tiles[size_t(i)], free_tiles[size_t(i + int64_t(mix.below(uint64_t(open - i))))]);
      std::sort(free_tiles.begin(), free_tiles.begin() + take);
      for (int64_t t = 0; t < sinks; ++t) p.tile_idx.push_back(int32_t(t));
      p.tile_idx.insert(p.tile_idx.end(), free_tiles.begin(), free_tiles.begin() + take);
      p.tile_idx.push_back(int32_t(r));
      p.end_row();
    }
    return p;
  }
};

}  // namespace

PREFILL_METHOD(Random, {.name = "random",
                        .doc = "random tiles at a given density: what no method may fall below",
                        .source = "control of this project; no paper",
                        .cost = "no estimate; drawing O(Hq * (n/tile)^2) on the host",
                        .full_budget = R"({"density": 1.0})",
                        .knob = "density",
                        .knob_values = {0.05, 0.2, 0.5, 0.8, 1.0}})

}  // namespace prefill
