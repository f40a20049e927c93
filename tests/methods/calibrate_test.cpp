// Calibration: clusters against a naive telling of average linkage, and artefacts that their methods accept.
#include "core/calibrate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "core/base/text.h"
#include "methods/parts/artifacts.h"
#include "methods/parts/cluster.h"
#include "methods/parts/minference_patterns.h"
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

  /// Two layers of four heads: even heads attend to the first keys, odd heads to their neighbourhood.
  Calibrator::Result calibrate(const std::string& name, const json& params) {
    const CalibratorInfo& info = calibrators().at(name);
    Diagnostics bad;
    const Located given = from_json(params);
    const auto calibrator = info.make(info.read({&given}, "", "", bad), MethodEnv{model_});
    EXPECT_TRUE(bad.empty());
    const auto backend = backends().at("cpu-ref").make();
    const auto clock = make_cpu_clock();
    for (int prompt = 0; prompt < 2; ++prompt)
      for (int layer = 0; layer < 2; ++layer) {
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
        calibrator->see({a, layer, n, *backend, *clock}, prompt);
      }
    return calibrator->finish();
  }
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

}  // namespace
}  // namespace prefill
