// SharePrefill's dictionary: who becomes a pivot, what it teaches, who borrows, and what the released
// fallback test does to that.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/base/text.h"
#include "core/engine.h"

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
  /// Three equal heads in every layer, so that every distance between stripes is 0.
  static Qkv equal_heads() {
    auto g = at::detail::createCPUGenerator(5);
    const at::Tensor q = at::randn({1, kTokens, 64}, g, at::kFloat) * 2.0,
                     k = at::randn({1, kTokens, 64}, g, at::kFloat);
    return {q.repeat({3, 1, 1}), k, at::randn({1, kTokens, 64}, g, at::kFloat), 0.125};
  }
  struct Run {
    std::vector<AttentionPlan> plans;
    json facts;
  };
  static Run run(const json& p) {
    const auto method = make_method("shareprefill", p, MethodEnv{ModelShape{"toy", 3, 3, 1, 64}});
    const auto backend = backends().at("cpu-ref").make();
    const auto clock = make_cpu_clock();
    const auto state = method->begin_prompt(kTokens);
    const Qkv qkv = equal_heads();
    Run r;
    for (int layer = 0; layer < 3; ++layer) {
      const LayerContext c{qkv, layer, kTokens, *backend, *clock};
      r.plans.push_back(method->plan(c, *state));
      check(r.plans.back(), 3, kTokens);
      method->observe(c, backend->attend(qkv, r.plans.back()), *state);
    }
    r.facts = method->report(*state);
    return r;
  }
  /// Per row of blocks, the smallest set of blocks that holds 0.6 of the row's mean attention, from the full
  /// softmax.
  static at::Tensor taught() {
    const Qkv a = equal_heads();
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
    for (int h : {0, 1}) {
      const at::Tensor mask =
          tile_mask(r.plans[size_t(layer)].tiles, r.plans[size_t(layer)].heads[size_t(h)].index, kTokens);
      EXPECT_FALSE((pattern & mask.logical_not()).any().item<bool>()) << "layer " << layer << " head " << h;
      // Of its own the borrower adds one vertical and one slash stripe: column 0 and the diagonal.
      at::Tensor own = at::eye(pattern.size(0), at::kFloat).to(at::kBool);
      own.select(1, 0).fill_(true);
      EXPECT_TRUE(at::equal(mask, pattern | own)) << "layer " << layer << " head " << h;
    }
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
