// Calibration: clusters against a naive telling of average linkage, and artefacts that their methods accept.
#include "core/calibrate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <set>

#include "core/base/text.h"
#include "methods/parts/artifacts.h"
#include "methods/parts/cluster.h"
#include "methods/parts/minference_patterns.h"
#include "methods/parts/scores.h"
#include "methods/parts/share_clusters.h"

namespace prefill {
namespace {

using nlohmann::json;

/// Mean distance over all member pairs, recomputed from scratch at every merge.
std::vector<int> naive_linkage(const std::vector<double>& d, int n, double cut) {
  std::vector<std::vector<int>> clusters;
  for (int i = 0; i < n; ++i) clusters.push_back({i});
  while (clusters.size() > 1) {
    double best = 1e9;
    size_t a = 0, b = 0;
    for (size_t i = 0; i < clusters.size(); ++i)
      for (size_t j = i + 1; j < clusters.size(); ++j) {
        double sum = 0;
        for (int x : clusters[i])
          for (int y : clusters[j]) sum += d[size_t(x * n + y)];
        sum /= double(clusters[i].size() * clusters[j].size());
        if (sum < best) best = sum, a = i, b = j;
      }
    if (best > cut) break;
    clusters[a].insert(clusters[a].end(), clusters[b].begin(), clusters[b].end());
    clusters.erase(clusters.begin() + int64_t(b));
  }
  std::vector<int> label(size_t(n), -1);
  for (size_t c = 0; c < clusters.size(); ++c)
    for (int i : clusters[c]) label[size_t(i)] = int(c);
  return label;
}

TEST(AverageLinkage, EqualsTheNaiveTelling) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int n : {1, 2, 5, 12, 30})
    for (double cut : {0.0, 0.2, 0.45, 0.6, 1.0}) {
      std::vector<double> d(size_t(n * n), 0);
      for (int i = 0; i < n; ++i)
        for (int j = i + 1; j < n; ++j) d[size_t(i * n + j)] = d[size_t(j * n + i)] = uniform(random);
      const auto got = average_linkage(d, n, cut), expected = naive_linkage(d, n, cut);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j)
          ASSERT_EQ(got[size_t(i)] == got[size_t(j)], expected[size_t(i)] == expected[size_t(j)])
              << "n=" << n << " cut=" << cut << ": items " << i << ", " << j;
    }
}

class Calibration : public testing::Test {
 protected:
  Calibration()
      : path_((std::filesystem::temp_directory_path() /
               str("prefill_calibration_", testing::UnitTest::GetInstance()->current_test_info()->name(),
                   ".json"))
                  .string()) {}
  ~Calibration() override { std::filesystem::remove(path_); }

  std::unique_ptr<Calibrator> make(const std::string& name, const json& params) const {
    const CalibratorInfo& info = calibrators().at(name);
    Diagnostics bad;
    const Located given = from_json(params);
    auto made = info.make(info.read({&given}, "", "", bad), MethodEnv{model_});
    EXPECT_TRUE(bad.empty());
    return made;
  }

  /// Two layers of four heads: even heads attend to the first keys, odd heads to their neighbourhood.
  using Input = Qkv (*)(int prompt, int layer);
  Calibrator::Result calibrate(const std::string& name, const json& params, Input input = planted) {
    const auto calibrator = make(name, params);
    for (int prompt = 0; prompt < 2; ++prompt)
      for (int layer = 0; layer < 2; ++layer) {
        const Qkv a = input(prompt, layer);
        calibrator->see({a, layer, a.seq_len(), *backend_, *clock_}, prompt);
      }
    return calibrator->finish(2);
  }
  /// Even heads attend to the first keys, odd heads to all keys nearly alike: no key of theirs stands out
  /// enough for SALE's first threshold, and all of them matter.
  static Qkv half_flat(int prompt, int layer) {
    Qkv a = planted(prompt, layer);
    auto g = at::detail::createCPUGenerator(uint64_t(100 + 10 * prompt + layer));
    for (int h : {1, 3}) {
      a.q[h].copy_(at::randn({a.seq_len(), 64}, g, at::kFloat));
      a.k[h].copy_(at::randn({a.seq_len(), 64}, g, at::kFloat) * 0.1);
    }
    return a;
  }
  static Qkv planted(int prompt, int layer) {
    const int64_t n = 300 + 40 * prompt;
    auto g = at::detail::createCPUGenerator(uint64_t(10 * prompt + layer));
    Qkv a{at::randn({4, n, 64}, g, at::kFloat) * 0.1, at::randn({4, n, 64}, g, at::kFloat) * 0.1,
          at::randn({4, n, 64}, g, at::kFloat), 0.125};
    const at::Tensor angle =
        at::arange(n, at::kFloat).unsqueeze(1) * at::exp(at::arange(16, at::kFloat) * -0.4);
    const at::Tensor wave = at::cat({angle.cos(), angle.sin()}, 1) * 3;
    for (int h = 0; h < 4; ++h) {
      if (h % 2 == 0) {
        a.q[h].select(1, 0).fill_(10);
        a.k[h].select(1, 0).slice(0, 0, 4).fill_(10);
      } else {
        a.q[h].narrow(1, 0, 32).copy_(wave);
        a.k[h].narrow(1, 0, 32).copy_(wave);
      }
    }
    return a;
  }
  /// All heads attend alike but for noise of their own: head 2 of layer 0 has the least.
  static Qkv one_theme(int prompt, int layer) {
    const int64_t n = 300 + 40 * prompt;
    auto theme = at::detail::createCPUGenerator(uint64_t(prompt));
    auto noise = at::detail::createCPUGenerator(uint64_t(50 + 10 * prompt + layer));
    const at::Tensor q = at::randn({1, n, 64}, theme, at::kFloat) * 1.5,
                     k = at::randn({1, n, 64}, theme, at::kFloat) * 1.5;
    const at::Tensor share =
        (layer == 0 ? at::tensor({0.8, 0.6, 0.1, 0.7}) : at::tensor({0.5, 0.7, 0.4, 0.6}))
            .to(at::kFloat)
            .view({4, 1, 1});
    return {q + share * at::randn({4, n, 64}, noise, at::kFloat) * 1.5, k.repeat({4, 1, 1}),
            at::randn({4, n, 64}, noise, at::kFloat), 0.125};
  }
  const std::unique_ptr<KernelBackend> backend_ = backends().at("cpu-ref").make();
  const std::unique_ptr<StageClock> clock_ = make_cpu_clock();
  const ModelShape model_{"toy", 2, 4, 4, 64};
  std::string path_;
};

TEST_F(Calibration, SharePrefillFindsTheTwoKindsOfHeads) {
  for (const char* distance : {"pattern", "map"}) {
    const auto result = calibrate("shareprefill", {{"distance", distance}, {"block_size", 16}, {"cut", 0.4}});
    write_artifact(path_, {"shareprefill", model_, "hash", {}, result.content});
    const HeadClusters clusters = read_head_clusters(path_, model_, false);
    EXPECT_EQ(clusters.clusters, 2) << distance << ": " << result.content.dump();
    for (int layer = 0; layer < 2; ++layer)
      for (int h = 0; h < 4; ++h)
        EXPECT_EQ(clusters.cluster_of[size_t(layer)][size_t(h)], clusters.cluster_of[0][size_t(h % 2)])
            << distance;
    EXPECT_EQ(result.summary["sharing_heads"], 8);
    make_method("shareprefill", {{"lookup", path_}}, MethodEnv{model_});
  }
}

/// Pivots against Jaccard indices of patterns that are made here with loops over the rows of the softmax.
TEST_F(Calibration, SharePrefillAppointsWhatLaterLayersResembleMost) {
  const int block = 16, heads = 8;
  std::vector<double> similarity(size_t(heads * heads), 0);
  for (int prompt = 0; prompt < 2; ++prompt) {
    std::vector<std::set<int64_t>> pattern;
    for (int layer = 0; layer < 2; ++layer) {
      const Qkv a = one_theme(prompt, layer);
      const int64_t n = a.seq_len(), blocks = (n + block - 1) / block;
      for (int h = 0; h < 4; ++h) {
        const at::Tensor probs = at::matmul(a.q[h].to(at::kDouble), a.k[h].to(at::kDouble).t())
                                     .mul(a.scale)
                                     .masked_fill(at::ones({n, n}, at::kBool).triu(1), -INFINITY)
                                     .softmax(-1);
        pattern.emplace_back();
        for (int64_t r = 0; r < blocks; ++r) {
          const at::Tensor row = probs.slice(0, r * block, std::min(n, (r + 1) * block)).mean(0);
          std::vector<std::pair<double, int64_t>> mass;
          for (int64_t c = 0; c <= r; ++c)
            mass.emplace_back(-row.slice(0, c * block, std::min(n, (c + 1) * block)).sum().item<double>(), c);
          std::sort(mass.begin(), mass.end());
          double sum = 0;
          for (size_t i = 0; i < mass.size() && sum < 0.9; ++i) {
            sum -= mass[i].first;
            pattern.back().insert(r * blocks + mass[i].second);
          }
        }
      }
    }
    for (int a = 0; a < heads; ++a)
      for (int b = 0; b < heads; ++b) {
        std::set<int64_t> both;
        for (int64_t cell : pattern[size_t(a)])
          if (pattern[size_t(b)].count(cell)) both.insert(cell);
        similarity[size_t(a * heads + b)] +=
            double(both.size()) / double(pattern[size_t(a)].size() + pattern[size_t(b)].size() - both.size());
      }
  }
  auto expected = [&](const json& cluster) {
    json best;
    double most = -1;
    for (const json& pivot : cluster) {
      double sum = 0;
      for (const json& other : cluster)
        if (other[0] > pivot[0])
          sum += similarity[size_t((pivot[0].get<int>() * 4 + pivot[1].get<int>()) * heads +
                                   other[0].get<int>() * 4 + other[1].get<int>())];
      if (sum > most) most = sum, best = pivot;
    }
    return best;
  };
  const json whole = calibrate("shareprefill", {{"block_size", block}, {"cut", 1.0}}, one_theme).content;
  EXPECT_EQ(whole["best_pivots"], (json{{"0", {0, 2}}})) << "the head with the least noise in layer 0";
  int not_first = 0;
  for (int seed = 1; seed <= 6; ++seed) {
    const json content =
        calibrate("shareprefill",
                  {{"block_size", block}, {"cut", 0.5}, {"group_by", "random"}, {"seed", seed}}, one_theme)
            .content;
    EXPECT_EQ(content["best_pivots"].size(), content["clusters"].size());
    for (const auto& [id, cluster] : content["clusters"].items()) {
      EXPECT_EQ(content["best_pivots"][id], expected(cluster)) << cluster.dump();
      not_first += content["best_pivots"][id] != cluster[0];
    }
    write_artifact(path_, {"shareprefill", model_, "hash", {}, content});
    make_method("shareprefill", {{"lookup", path_}, {"pivot", "best"}}, MethodEnv{model_});
  }
  EXPECT_GT(not_first, 0) << "first come would pass too";
}

TEST_F(Calibration, MInferenceGivesEachHeadWhatKeepsMost) {
  // 30 columns and a short window against a long one: sizes scaled so that they matter at 300 tokens.
  const auto result = calibrate("minference", {{"scale", 0.05}, {"skip", 0}});
  write_artifact(path_, {"minference", model_, "hash", {}, result.content});
  const auto patterns = read_head_patterns(path_, model_, {});
  for (int layer = 0; layer < 2; ++layer)
    for (int h = 0; h < 4; ++h) {
      const HeadPattern& p = patterns[size_t(layer)][size_t(h)];
      EXPECT_GT(p.score, 0.5) << "layer " << layer << " head " << h;
      EXPECT_LE(p.score, 1 + 1e-6);
    }
  make_method("minference", {{"pattern_file", path_}}, MethodEnv{model_});
}

/// Equal cost: every candidate computes what was asked for, and what none can compute is refused with the
/// share that is within reach.
TEST_F(Calibration, MInferenceComparesAtTheDensityAskedForOrSaysWhyNot) {
  const auto long_input = [](int prompt, int layer) {
    auto g = at::detail::createCPUGenerator(uint64_t(10 * prompt + layer));
    return Qkv{at::randn({4, 2048, 16}, g, at::kFloat), at::randn({4, 2048, 16}, g, at::kFloat),
               at::randn({4, 2048, 16}, g, at::kFloat), 0.25};
  };
  std::string refused;
  try {
    calibrate("minference", {{"density", 0.25}, {"skip", 0}}, long_input);
  } catch (const InputError& e) {
    refused = e.what();
  }
  EXPECT_NE(refused.find("density=0.25 is out of reach: on a prompt of 2048 tokens"), std::string::npos)
      << refused;
  const auto result = calibrate("minference", {{"density", 0.9}, {"skip", 0}}, long_input);
  for (const json& w : result.summary["winners"]) {
    const bool stream = w["pattern"] == "stream_llm";
    const json params =
        stream ? json{{"sink", w["sizes"][0]}, {"local", w["sizes"][1]}}
               : json{{"vertical", w["sizes"][0]}, {"slash", w["sizes"][1]}, {"forced_distances", 30}};
    const auto method = make_method(stream ? "streaming" : "minference", params, MethodEnv{model_});
    const Qkv a = long_input(0, 0);
    const AttentionPlan plan =
        method->plan({a, 0, a.seq_len(), *backend_, *clock_}, *method->begin_prompt(a.seq_len()));
    double mean = 0;
    for (double share : density(plan, a.seq_len())) mean += share / 4;
    EXPECT_NEAR(mean, 0.9, 0.02) << w.dump();
  }
}

TEST_F(Calibration, SaleKeepsEveryPromptWithinTheError) {
  const double error = 0.2;
  const auto result = calibrate("sale", {{"error", error}, {"start", 0.05}}, half_flat);
  write_artifact(path_, {"sale", model_, "hash", {}, result.content});
  const auto method = make_method("sale", {{"thresholds", path_}, {"dense_below", 0}}, MethodEnv{model_});
  bool sparse = false;
  for (int layer = 0; layer < 2; ++layer)
    for (int prompt = 0; prompt < 2; ++prompt) {
      const Qkv a = half_flat(prompt, layer);
      const auto state = method->begin_prompt(a.seq_len());
      const AttentionPlan plan = method->plan({a, layer, a.seq_len(), *backend_, *clock_}, *state);
      const at::Tensor full = backend_->attend(a, AttentionPlan::uniform(4, {Route::dense, 0})).out;
      const at::Tensor off = (backend_->attend(a, plan).out - full).abs().sum(-1).mean(-1);
      for (int h = 0; h < 4; ++h) {
        const auto tau = result.content["thresholds"][size_t(layer)][size_t(h)].get<double>();
        EXPECT_LT(off[h].item<double>(), error) << "layer " << layer << " head " << h << " tau " << tau;
        sparse |= density(plan, a.seq_len())[size_t(h)] < 0.9;
        // A flat key has about 1 / 160 of what 160 exact keys have together: in from 0.05 / 8 on.
        EXPECT_EQ(tau, h % 2 ? 0.05 / 8 : 0.05) << "layer " << layer << " head " << h;
      }
    }
  EXPECT_TRUE(sparse) << "everything dense would pass too";
  // Another precision of the estimate is another calibration.
  EXPECT_THROW(make_method("sale", {{"thresholds", path_}, {"bits", 8}}, MethodEnv{model_}), InputError);
}

/// The rule of the released profiler, told with loops: per row the fewest blocks that hold the coverage.
TEST_F(Calibration, XAttentionProfilesAsTheReleasedRule) {
  const int block = 32, stride = 8;
  const auto result = calibrate("xattention", {{"block", block}, {"stride", stride}});
  for (int layer = 0; layer < 2; ++layer)
    for (int h = 0; h < 4; ++h) {
      double want = 0;
      for (int prompt = 0; prompt < 2; ++prompt) {
        const Qkv a = planted(prompt, layer);
        const int64_t n = a.seq_len(), nb = (n + block - 1) / block;
        const at::Tensor found = antidiagonal_mass(a.q, a.k, a.scale, block, {.stride = stride})[h];
        const at::Tensor probs = at::matmul(a.q[h], a.k[h].t())
                                     .mul(a.scale)
                                     .masked_fill(at::ones({n, n}, at::kBool).triu(1), -INFINITY)
                                     .softmax(-1);
        double taken = 0, all = 0;
        for (int64_t r = 0; r < nb; ++r) {
          std::vector<std::pair<double, double>> tiles;  // true mass, antidiagonal mass
          double total = 0, sum = 0, least = INFINITY;
          for (int64_t c = 0; c < nb; ++c) {
            const at::Tensor tile = probs.slice(0, r * block, std::min(n, (r + 1) * block))
                                        .slice(1, c * block, std::min(n, (c + 1) * block));
            tiles.emplace_back(tile.sum().item<double>(), found[r][c].item<double>());
            total += tiles.back().first;
            all += tiles.back().second;
          }
          auto ranked = tiles;
          std::sort(ranked.rbegin(), ranked.rend());
          for (size_t i = 0; i < ranked.size() && sum < 0.9 * total; ++i) {
            sum += ranked[i].first;
            least = std::min(least, ranked[i].second);
          }
          for (const auto& tile : tiles) taken += tile.second >= least ? tile.second : 0;
        }
        want = std::max(want, taken / all);
      }
      EXPECT_NEAR(result.content["thresholds"][size_t(layer)][size_t(h)].get<double>(), want, 1e-4)
          << "layer " << layer << " head " << h;
    }
  write_artifact(path_, {"xattention", model_, "hash", {}, result.content});
  make_method("xattention", {{"thresholds", path_}, {"block", block}, {"stride", stride}}, MethodEnv{model_});
  EXPECT_THROW(
      make_method("xattention", {{"thresholds", path_}, {"block", block}, {"stride", 16}}, MethodEnv{model_}),
      InputError);
  ModelShape other = model_;
  other.q_heads = 8;
  EXPECT_THROW(make_method("xattention", {{"thresholds", path_}, {"block", block}, {"stride", stride}},
                           MethodEnv{other}),
               InputError);
}

/// A model whose next token moves by `weight` when the layer is a triangle.
TEST(TriangleLayers, TakesTheMostLayersThatTheToleranceAllows) {
  const std::vector<double> weight = {0.9, 0.05, 0.4, 0.02, 0.1, 0.0, 0.3};
  const ModelShape model{"toy", 7, 1, 1, 64};
  const auto backend = backends().at("cpu-ref").make();
  const auto clock = make_cpu_clock();
  const Qkv x{at::zeros({1, 700, 64}), at::zeros({1, 700, 64}), at::zeros({1, 700, 64}), 0.125};
  auto logits_of = [&](const std::vector<bool>& triangle) {
    double shift = 0;
    for (size_t l = 0; l < weight.size(); ++l) shift += triangle[l] ? weight[l] : 0;
    return at::tensor({shift, 0.0}, at::kDouble).unsqueeze(0);
  };
  const auto base = at::log_softmax(logits_of(std::vector<bool>(7, false))[0], 0);
  for (double tolerance : {0.0, 0.001, 0.02, 10.0}) {
    const CalibratorInfo& info = calibrators().at("trianglemix");
    Diagnostics bad;
    const Located given = from_json(json{{"tolerance", tolerance}});
    const auto calibrator = info.make(info.read({&given}, "", "", bad), MethodEnv{model});
    for (int l = 0; l < 7; ++l) calibrator->see({x, l, 700, *backend, *clock}, 0);
    calibrator->explore(2, [&](int, const Calibrator::PlanOfLayer& plan) {
      std::vector<bool> triangle;
      for (int l = 0; l < 7; ++l)
        triangle.push_back(plan({x, l, 700, *backend, *clock}).heads[0].kind == Route::window);
      return logits_of(triangle);
    });
    const auto layers = calibrator->finish(2).content["layers"].get<std::vector<int>>();
    // Brute force: the shift grows with every layer, so the most layers are the lightest ones.
    auto divergence = [&](const std::vector<int>& list) {
      std::vector<bool> triangle(7, false);
      for (int l : list) triangle[size_t(l)] = true;
      const auto q = at::log_softmax(logits_of(triangle)[0], 0);
      return (base.exp() * (base - q)).sum().item<double>();
    };
    std::vector<int> order = {5, 3, 1, 4, 6, 2, 0}, want;
    for (size_t k = 1; k <= 7; ++k)
      if (divergence({order.begin(), order.begin() + int64_t(k)}) <= tolerance)
        want = {order.begin(), order.begin() + int64_t(k)};
    std::sort(want.begin(), want.end());
    EXPECT_EQ(layers, want) << "tolerance " << tolerance;
  }
}

TEST(TriangleLayers, RefusesPromptsThatFitIntoTheTriangle) {
  const CalibratorInfo& info = calibrators().at("trianglemix");
  Diagnostics bad;
  const auto calibrator = info.make(info.read({}, "", "", bad), MethodEnv{ModelShape{"toy", 1, 1, 1, 64}});
  const auto backend = backends().at("cpu-ref").make();
  const auto clock = make_cpu_clock();
  const Qkv x{at::zeros({1, 600, 64}), at::zeros({1, 600, 64}), at::zeros({1, 600, 64}), 0.125};
  EXPECT_THROW(calibrator->see({x, 0, 600, *backend, *clock}, 0), InputError);
}

TEST_F(Calibration, TriangleMixReadsItsLayers) {
  write_artifact(path_, {"trianglemix", model_, "hash", {}, {{"layers", {1}}}});
  const auto method = make_method("trianglemix", {{"layer_file", path_}}, MethodEnv{model_});
  const Qkv a = planted(0, 0);
  const auto state = method->begin_prompt(a.seq_len());
  EXPECT_EQ(method->plan({a, 0, a.seq_len(), *backend_, *clock_}, *state).heads[0].kind, Route::dense);
  EXPECT_EQ(method->plan({a, 1, a.seq_len(), *backend_, *clock_}, *state).heads[0].kind, Route::window);
  write_artifact(path_, {"trianglemix", model_, "hash", {}, {{"layers", json::array()}}});
  const auto none =
      make_method("trianglemix", {{"layer_file", path_}, {"starting_layer", 0}}, MethodEnv{model_});
  EXPECT_EQ(
      none->plan({a, 1, a.seq_len(), *backend_, *clock_}, *none->begin_prompt(a.seq_len())).heads[0].kind,
      Route::dense)
      << "no layer may be a triangle: that is what the file says";
}

}  // namespace
}  // namespace prefill
