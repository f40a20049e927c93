// SharePrefill's dictionary: who becomes a pivot (first come, or the appointed head), what it teaches, who
// borrows, and what the released fallback test does to that.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <random>
#include <tuple>

#include "core/base/text.h"
#include "core/engine.h"
#include "methods/parts/share_clusters.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kTokens = 500;
constexpr int kBlock = 32;

class SharePrefillTest : public testing::Test {
 protected:
  SharePrefillTest()
      : path_((fs::temp_directory_path() /
               str("prefill_share_", testing::UnitTest::GetInstance()->current_test_info()->name(), ".json"))
                  .string()) {
    // Heads 0 and 1 of all three layers are one cluster; head 2 is in none.
    write_file_atomically(
        path_,
        R"({"clusters": {"a": [[0,0],[0,1],[1,0],[1,1],[2,0],[2,1]], "b": [[0,2]]}, "shared_clusters": ["a"]})");
  }
  ~SharePrefillTest() override { fs::remove(path_); }

  json params() const {
    return {{"lookup", path_},          {"block_size", kBlock},        {"min_budget", kBlock},
            {"pattern_threshold", 0.6}, {"queryaware_threshold", 0.0}, {"fallback_threshold", 0.99}};
  }
  /// Params for the cluster of path_ with `pivot` appointed, under which every head that may borrow does.
  json appointed(const char* pivot) const {
    write_file_atomically(path_, str(R"({"clusters": {"a": [[0,0],[0,1],[1,0],[1,1],[2,0],[2,1]]}, )",
                                     R"("shared_clusters": ["a"], "best_pivots": {"a": )", pivot, "}}"));
    json p = params();
    p.update({{"pivot", "best"}, {"similarity_threshold", 1.0}, {"fallback_threshold", 100.0}});
    return p;
  }
  /// Three equal heads, so that every distance between stripes is 0 where all layers have the same seed.
  static Qkv equal_heads(uint64_t seed = 5) {
    auto g = at::detail::createCPUGenerator(seed);
    const at::Tensor q = at::randn({1, kTokens, 64}, g, at::kFloat) * 2.0,
                     k = at::randn({1, kTokens, 64}, g, at::kFloat);
    return {q.repeat({3, 1, 1}), k, at::randn({1, kTokens, 64}, g, at::kFloat), 0.125};
  }
  struct Run {
    std::vector<AttentionPlan> plans;
    json facts;
  };
  static Run run(const json& p, const std::array<uint64_t, 3>& seeds = {5, 5, 5}, HeadRange range = {0, 3}) {
    const auto method = make_method("shareprefill", p, MethodEnv{ModelShape{"toy", 3, 3, 1, 64}, range});
    const auto backend = backends().at("cpu-ref").make();
    const auto clock = make_cpu_clock();
    const auto state = method->begin_prompt(kTokens);
    Run r;
    for (int layer = 0; layer < 3; ++layer) {
      Qkv qkv = equal_heads(seeds[size_t(layer)]);
      qkv.q = qkv.q.narrow(0, range.first, range.count);
      const LayerContext c{qkv, layer, kTokens, *backend, *clock};
      r.plans.push_back(method->plan(c, *state));
      check(r.plans.back(), range.count, kTokens);
      method->observe(c, backend->attend(qkv, r.plans.back()), *state);
    }
    r.facts = method->report(*state);
    return r;
  }
  /// Per row of blocks, the smallest set of blocks that holds 0.6 of the row's mean attention, from the full
  /// softmax.
  static at::Tensor taught(uint64_t seed = 5) {
    const Qkv a = equal_heads(seed);
    const at::Tensor future = at::ones({kTokens, kTokens}, at::kBool).triu(1);
    const at::Tensor probs = (at::matmul(a.q[0].to(at::kDouble), a.k[0].to(at::kDouble).t()) * a.scale)
                                 .masked_fill(future, -std::numeric_limits<double>::infinity())
                                 .softmax(-1);
    const int64_t blocks = (kTokens + kBlock - 1) / kBlock;
    at::Tensor mask = at::zeros({blocks, blocks}, at::kBool);
    for (int64_t r = 0; r < blocks; ++r) {
      const int64_t to = std::min<int64_t>(kTokens, (r + 1) * kBlock);
      const at::Tensor row = probs.slice(0, r * kBlock, to).mean(0);
      std::vector<std::pair<double, int64_t>> mass;
      for (int64_t c = 0; c <= r; ++c)
        mass.emplace_back(
            -row.slice(0, c * kBlock, std::min<int64_t>(kTokens, (c + 1) * kBlock)).sum().item<double>(), c);
      std::sort(mass.begin(), mass.end());
      double sum = 0;
      for (const auto& [m, c] : mass) {
        if (sum >= 0.6) break;
        sum -= m;
        mask[r][c] = true;
      }
    }
    return mask;
  }
  /// What a borrower computes: the pattern taught, and of its own one vertical and one slash stripe (column 0
  /// and the diagonal).
  static at::Tensor borrowed(const at::Tensor& pattern) {
    at::Tensor own = at::eye(pattern.size(0), at::kFloat).to(at::kBool);
    own.select(1, 0).fill_(true);
    return pattern | own;
  }
  static at::Tensor mask_of(const Run& r, int layer, int head) {
    const AttentionPlan& plan = r.plans[size_t(layer)];
    EXPECT_EQ(plan.heads[size_t(head)].kind, Route::tiles) << "layer " << layer << " head " << head;
    return tile_mask(plan.tiles, plan.heads[size_t(head)].index, kTokens);
  }
  std::string path_;
};

TEST_F(SharePrefillTest, FirstHeadTeachesLaterLayersBorrow) {
  const Run r = run(params());
  EXPECT_EQ(r.plans[0].heads[0].kind, Route::dense);
  EXPECT_EQ(r.plans[0].want_tile_mean, (std::vector<uint8_t>{1, 0, 0}));
  EXPECT_EQ(r.plans[0].heads[1].kind, Route::tiles)
      << "its pivot is in the same layer and has taught nothing yet";
  EXPECT_EQ(r.facts["pivots"], 1);
  EXPECT_EQ(r.facts["shared_heads"], 4);
  EXPECT_EQ(r.facts["stripe_heads"], 1 + 3);
  const at::Tensor pattern = taught();
  for (int layer : {1, 2})
    for (int h : {0, 1})
      EXPECT_TRUE(at::equal(mask_of(r, layer, h), borrowed(pattern))) << "layer " << layer << " head " << h;
}

TEST_F(SharePrefillTest, AppointedHeadTeachesInsteadOfTheFirst) {
  // Layers that differ, so that what a borrower computes tells who taught it.
  const std::array<uint64_t, 3> layers = {5, 6, 7};
  const at::Tensor of_first = borrowed(taught(5)), of_best = borrowed(taught(6));
  ASSERT_FALSE(at::equal(of_first, of_best));
  json p = appointed("[1, 1]");
  const Run best = run(p, layers);
  for (int h = 0; h < 3; ++h) EXPECT_EQ(best.plans[0].heads[size_t(h)].kind, Route::tiles);
  EXPECT_TRUE(best.plans[0].want_tile_mean.empty());
  EXPECT_EQ(best.plans[1].want_tile_mean, (std::vector<uint8_t>{0, 1, 0}));
  EXPECT_EQ(best.plans[1].heads[1].kind, Route::dense);
  for (int h : {0, 1}) EXPECT_TRUE(at::equal(mask_of(best, 2, h), of_best)) << "head " << h;
  EXPECT_EQ(best.facts["pivot"], "best");
  EXPECT_EQ(best.facts["pivots"], 1);
  EXPECT_EQ(best.facts["pivot_heads"], json::parse("[[1, 1]]"));
  EXPECT_EQ(best.facts["shared_heads"], 2);
  EXPECT_EQ(best.facts["stripe_heads"], 3 + 2 + 1);
  EXPECT_EQ(best.facts["clusters_first_come"], 0);
  // Up to the pivot's layer everybody does as without sharing.
  json alone = p;
  alone["sharing"] = false;
  const Run none = run(alone, layers);
  for (int h : {0, 1, 2}) EXPECT_TRUE(at::equal(mask_of(best, 0, h), mask_of(none, 0, h))) << "head " << h;
  EXPECT_TRUE(at::equal(mask_of(best, 1, 0), mask_of(none, 1, 0)));

  p["pivot"] = "first";
  const Run first = run(p, layers);
  EXPECT_EQ(first.facts["pivot"], "first");
  EXPECT_EQ(first.facts["pivot_heads"], json::parse("[[0, 0]]"));
  EXPECT_EQ(first.facts["shared_heads"], 4);
  for (int h : {0, 1}) EXPECT_TRUE(at::equal(mask_of(first, 2, h), of_first)) << "head " << h;
}

TEST_F(SharePrefillTest, AppointedHeadTeachesThoughItBeQueryAware) {
  json p = appointed("[1, 0]");
  p["queryaware_threshold"] = 1.0;  // no distance is that large
  const Run best = run(p);
  EXPECT_EQ(best.plans[1].heads[0].kind, Route::dense);
  EXPECT_EQ(best.facts["pivot_heads"], json::parse("[[1, 0]]"));
  EXPECT_EQ(best.facts["query_aware_heads"], 8);
  p["pivot"] = "first";
  const Run first = run(p);
  EXPECT_EQ(first.facts["pivots"], 0);
  EXPECT_EQ(first.facts["query_aware_heads"], 9);
}

TEST_F(SharePrefillTest, ARankWithoutTheAppointedHeadTakesItsFirstAndSaysSo) {
  const json p = appointed("[1, 1]");
  const Run with = run(p, {5, 6, 7}, {1, 2}), without = run(p, {5, 6, 7}, {0, 1}),
            outside = run(p, {5, 6, 7}, {2, 1});
  EXPECT_EQ(with.facts["pivot_heads"], json::parse("[[1, 1]]")) << "by its number in the model";
  EXPECT_EQ(with.facts["clusters_first_come"], 0);
  EXPECT_TRUE(at::equal(mask_of(with, 2, 0), borrowed(taught(6))));
  EXPECT_EQ(without.facts["pivot_heads"], json::parse("[[0, 0]]"));
  EXPECT_EQ(without.facts["clusters_first_come"], 1);
  EXPECT_TRUE(at::equal(mask_of(without, 2, 0), borrowed(taught(5))));
  EXPECT_EQ(outside.facts["clusters_first_come"], 0) << "no head of the cluster is here";
}

TEST_F(SharePrefillTest, BestPivotNeedsAFileThatNamesIt) {
  json p = params();  // the released format
  p["pivot"] = "best";
  const MethodEnv env{ModelShape{"toy", 3, 3, 1, 64}};
  try {
    make_method("shareprefill", p, env);
    FAIL() << "accepted";
  } catch (const InputError& e) {
    const std::string said = e.what();
    EXPECT_EQ(said.find(path_), 0u) << said;
    EXPECT_NE(said.find("prefillbench calibrate shareprefill"), std::string::npos) << said;
  }
  p["pivot"] = "first";
  make_method("shareprefill", p, env);
}

/// The rule told by sorting: most similarity to later layers first, then the lowest layer, then head.
TEST(BestPivot, EqualsARankingOfTheClustersHeads) {
  const int layers = 4, q_heads = 3, n = layers * q_heads;
  std::mt19937 random(9);
  int not_first = 0, ties = 0;
  for (int round = 0; round < 300; ++round) {
    // Quarters, whose sums are exact, so that equals occur and are equal.
    std::vector<double> d(size_t(n * n), 0);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < i; ++j) d[size_t(i * n + j)] = d[size_t(j * n + i)] = double(random() % 5) / 4;
    std::vector<std::pair<int, int>> members;
    for (int l = 0; l < layers; ++l)
      for (int h = 0; h < q_heads; ++h)
        if (random() % 2) members.emplace_back(l, h);
    if (members.empty()) continue;
    std::vector<std::tuple<double, int, int>> ranking;
    std::vector<int> numbers;
    for (const auto& [l, h] : members) {
      numbers.push_back(l * q_heads + h);
      double similarity = 0;
      for (int later = (l + 1) * q_heads; later < n; ++later)
        if (std::count(members.begin(), members.end(), std::pair{later / q_heads, later % q_heads}))
          similarity += 1 - d[size_t((l * q_heads + h) * n + later)];
      ranking.emplace_back(-similarity, l, h);
    }
    std::sort(ranking.begin(), ranking.end());
    const auto [mass, layer, head] = ranking.front();
    EXPECT_EQ(best_pivot(numbers, d, n, q_heads), layer * q_heads + head) << "round " << round;
    not_first += numbers.front() != layer * q_heads + head;
    ties += ranking.size() > 1 && std::get<0>(ranking[1]) == mass;
  }
  EXPECT_GT(not_first, 50);
  EXPECT_GT(ties, 20);
}

TEST_F(SharePrefillTest, NobodySharesWithoutAFileOrWhenToldNotTo) {
  json without = params();
  without.erase("lookup");
  json off = params();
  off["sharing"] = false;
  for (const json& p : {without, off}) {
    const Run r = run(p);
    EXPECT_EQ(r.facts["clusters"], 0);
    EXPECT_EQ(r.facts["pivots"], 0);
    EXPECT_EQ(r.facts["stripe_heads"], 9);
  }
}

TEST_F(SharePrefillTest, ThresholdsForbidBorrowing) {
  json similar = params();
  similar["similarity_threshold"] = 0.0;  // "below" nothing
  EXPECT_EQ(run(similar).facts["shared_heads"], 0);
  json sparse = params();
  sparse["fallback_threshold"] = 0.0;  // every pivot counts as highly sparse
  EXPECT_EQ(run(sparse).facts["shared_heads"], 0);
}

// Under the released rules the list of the pivot's stripes counts block (0,0) again and again, so the same
// pivot looks highly sparse and nobody borrows (methods.md 8.7).
TEST_F(SharePrefillTest, ReleasedFallbackTestForbidsWhatIntendedAllows) {
  json p = params();
  p["semantics"] = "released";
  const Run r = run(p);
  EXPECT_EQ(r.facts["pivots"], 1);
  EXPECT_EQ(r.facts["shared_heads"], 0);
  p["fallback_threshold"] = 100.0;
  EXPECT_EQ(run(p).facts["shared_heads"], 4);
}

}  // namespace
}  // namespace prefill
