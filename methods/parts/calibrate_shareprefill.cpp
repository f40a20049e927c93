// The offline half of SharePrefill, which its authors did not release: which heads attend alike.
// Block-averaged attention maps of full attention -> distances between heads -> average-linkage clusters with
// a distance cut, and of each cluster the head that its later layers resemble most.
#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "core/base/text.h"
#include "core/calibrate.h"
#include "methods/parts/cluster.h"
#include "methods/parts/share_clusters.h"

namespace prefill {
namespace {

struct ClusterParams {
  std::string distance = "pattern", group_by = "similarity";
  double pattern_threshold = 0.9, cut = 0.5;
  int block_size = 128, map_side = 64;
  int64_t seed = 1;
  template <class V>
  void fields(V& v) {
    v("distance", distance, one_of({"pattern", "map"}),
      "pattern: 1 - Jaccard index of the blocks that hold pattern_threshold of every row; map: mean over "
      "rows of the square root of the Jensen-Shannon divergence");
    v("cut", cut, in(0, 1), "clusters are merged while their mean distance is at most this");
    v("pattern_threshold", pattern_threshold, in(0, 1), "as the method's");
    v("block_size", block_size, in(16, 512), "tokens per block of the maps");
    v("map_side", map_side, in(4, 1024), "largest side of a map; longer prompts use larger blocks");
    v("group_by", group_by, one_of({"similarity", "random"}),
      "random: the same cluster sizes with shuffled heads (the control of an ablation)");
    v("seed", seed, at_least(0), "of the shuffle");
  }
  std::string invalid() const { return {}; }
};

class ClusterHeads final : public Calibrator {
 public:
  using Params = ClusterParams;
  ClusterHeads(Params p, MethodEnv env)
      : params_(std::move(p)),
        model_(std::move(env.model)),
        heads_(model_.layers * model_.q_heads),
        sum_(size_t(heads_) * size_t(heads_), 0) {}

  void see(const LayerContext& c, int) override {
    const int tile =
        std::max<int>(params_.block_size, int((c.seq_len + params_.map_side - 1) / params_.map_side));
    AttentionPlan all = AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0});
    all.tiles.q_tile = all.tiles.k_tile = tile;
    all.want_tile_mean.assign(all.heads.size(), 1);
    maps_.push_back(c.backend.attend(c.qkv, all).tile_mean.to(at::kCPU, at::kFloat).contiguous());
    if (c.layer + 1 == model_.layers) add_prompt();
  }

  Result finish(int prompts) override {
    std::vector<double> mean = sum_;
    for (double& d : mean) d /= prompts;
    std::vector<int> label = average_linkage(mean, heads_, params_.cut);
    if (params_.group_by == "random")
      std::shuffle(label.begin(), label.end(), std::mt19937_64(uint64_t(params_.seed)));

    std::map<int, std::vector<int>> members;
    for (int i = 0; i < heads_; ++i) members[label[size_t(i)]].push_back(i);
    nlohmann::json clusters = nlohmann::json::object(), shared = nlohmann::json::array(),
                   pivots = nlohmann::json::object();
    double inside = 0, outside = 0;
    int64_t inside_pairs = 0, outside_pairs = 0, sharing = 0;
    for (const auto& [id, list] : members) {
      std::set<int> layers;
      nlohmann::json entry = nlohmann::json::array();
      for (int i : list) {
        entry.push_back({i / model_.q_heads, i % model_.q_heads});
        layers.insert(i / model_.q_heads);
      }
      clusters[std::to_string(id)] = entry;
      const int pivot = best_pivot(list, mean, heads_, model_.q_heads);
      pivots[std::to_string(id)] = {pivot / model_.q_heads, pivot % model_.q_heads};
      // A head can only borrow from an earlier layer.
      if (layers.size() > 1) {
        shared.push_back(std::to_string(id));
        sharing += int64_t(list.size());
      }
    }
    for (int i = 0; i < heads_; ++i)
      for (int j = i + 1; j < heads_; ++j) {
        const double d = mean[size_t(i) * size_t(heads_) + size_t(j)];
        (label[size_t(i)] == label[size_t(j)] ? inside : outside) += d;
        ++(label[size_t(i)] == label[size_t(j)] ? inside_pairs : outside_pairs);
      }
    nlohmann::json summary = {{"clusters", members.size()},
                              {"shared_clusters", shared.size()},
                              {"sharing_heads", sharing},
                              {"heads", heads_}};
    if (inside_pairs > 0) summary["mean_distance_inside"] = inside / double(inside_pairs);
    if (outside_pairs > 0) summary["mean_distance_outside"] = outside / double(outside_pairs);
    return {{{"clusters", clusters}, {"shared_clusters", shared}, {"best_pivots", pivots}}, summary};
  }

 private:
  /// Distances between all heads of the prompt whose maps are complete.
  void add_prompt() {
    const int64_t side = maps_.front().size(1);
    const at::Tensor maps = at::cat(maps_).view({heads_, side, side});
    maps_.clear();
    params_.distance == "pattern" ? add_pattern_distances(maps) : add_map_distances(maps);
  }

  void add_pattern_distances(const at::Tensor& maps) {
    auto [sorted, order] = maps.sort(-1, true);
    const at::Tensor keep = (sorted.cumsum(-1) - sorted).lt(params_.pattern_threshold) & sorted.gt(0);
    const at::Tensor pattern = at::zeros_like(keep).scatter(2, order, keep).flatten(1).contiguous();
    const int64_t cells = pattern.size(1), words = (cells + 63) / 64;
    std::vector<uint64_t> bits(size_t(heads_) * size_t(words), 0);
    for (int64_t h = 0; h < heads_; ++h)
      for (int64_t i = 0; i < cells; ++i)
        if (pattern.const_data_ptr<bool>()[h * cells + i])
          bits[size_t(h * words + i / 64)] |= uint64_t(1) << (i % 64);
    each_pair([&](int a, int b) {
      int64_t both = 0, any = 0;
      for (int64_t w = 0; w < words; ++w) {
        const uint64_t x = bits[size_t(a * words + w)], y = bits[size_t(b * words + w)];
        both += std::popcount(x & y);
        any += std::popcount(x | y);
      }
      return any == 0 ? 0.0 : 1 - double(both) / double(any);
    });
  }

  void add_map_distances(const at::Tensor& maps) {
    const int64_t side = maps.size(1);
    const float* m = maps.const_data_ptr<float>();
    each_pair([&](int a, int b) {
      double sum = 0;
      for (int64_t r = 0; r < side; ++r) {
        double js = 0;
        const float *p = m + (a * side + r) * side, *q = m + (b * side + r) * side;
        for (int64_t t = 0; t <= r; ++t) {
          const double mid = (double(p[t]) + q[t]) / 2;
          if (p[t] > 0) js += 0.5 * p[t] * std::log(p[t] / mid);
          if (q[t] > 0) js += 0.5 * q[t] * std::log(q[t] / mid);
        }
        sum += std::sqrt(std::max(0.0, js));
      }
      return sum / double(side);
    });
  }

  template <class F>
  void each_pair(F distance) {
    for (int a = 0; a < heads_; ++a)
      for (int b = a + 1; b < heads_; ++b) {
        const double d = distance(a, b);
        sum_[size_t(a) * size_t(heads_) + size_t(b)] += d;
        sum_[size_t(b) * size_t(heads_) + size_t(a)] += d;
      }
  }

  Params params_;
  ModelShape model_;
  int heads_;
  std::vector<double> sum_;       // [heads*heads], over prompts
  std::vector<at::Tensor> maps_;  // of the prompt in flight, per layer [q_heads, side, side]
};

const RegisterCalibrator<ClusterHeads> cluster_heads_entry(
    {.name = "shareprefill",
     .doc = "cluster the heads whose block-averaged attention is alike on the given prompts",
     .field = "lookup"},
    __FILE__);

}  // namespace
}  // namespace prefill
