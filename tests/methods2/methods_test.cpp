// What each method promises under `semantics: intended`, beyond what the conformance suite asks of all of
// them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/engine.h"
#include "tests/methods2/harness.h"

namespace prefill {
namespace {

using testing::columns_of;
using testing::plan_of;
using testing::reference_backend;
using testing::synthetic_qkv;
using testing::tiles_of;

at::Tensor attended(const Qkv& x, const AttentionPlan& plan) {
  return reference_backend()->attend(x, plan).out.to(at::kFloat);
}
double worst(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }
at::Tensor dense(const Qkv& x) { return attended(x, AttentionPlan::uniform(x.q_heads(), {Route::dense, 0})); }

const nlohmann::json kSmallAnchor = {{"block", 16}, {"step", 2}, {"theta", 2.0}};

TEST(AnchorMethod, TwoPassesWithEveryColumnAreDenseAttention) {
  const Qkv x = synthetic_qkv(22, 4, 2, 203, 64, at::kFloat);
  for (const char* tail : {"dense", "sparse"}) {
    nlohmann::json all = kSmallAnchor;
    all["theta"] = 1e9;
    all["tail"] = tail;
    const AttentionPlan plan = plan_of("anchor", all, x);
    ASSERT_TRUE(plan.resume.has_value());
    EXPECT_LT(worst(attended(x, plan), dense(x)), 1e-4);
    for (double d : density(plan, 203)) EXPECT_NEAR(d, 1, 1e-9);
  }
}

TEST(AnchorMethod, ReleasedCountsFirstKeysTwiceAndLosesTheBlockBeforeTheGroup) {
  const Qkv x = synthetic_qkv(23, 2, 1, 200, 64);
  nlohmann::json all = kSmallAnchor;
  all["theta"] = 1e9;
  all["semantics"] = "released";
  const AttentionPlan plan = plan_of("anchor", all, x);
  EXPECT_TRUE(plan.resume->overlap_allowed);
  at::Tensor got = columns_of(plan, 0, 200);
  for (int64_t g = 1; g < 6; ++g)
    for (int64_t j = 0; j < 200; ++j)
      EXPECT_EQ(got[g][j].item<bool>(), j >= 16 && j < g * 32 - 16) << g << " " << j;
}

// The released wrapper slices with -0 at such lengths (methods.md 7: "zero output at S % 2048 = 0").
TEST(AnchorMethod, ReleasedReturnsZerosAtMultiplesOfTheGroup) {
  const auto backend = reference_backend();
  const auto clock = make_cpu_clock();
  for (const auto& [n, semantics, zero] :
       std::vector<std::tuple<int64_t, std::string, bool>>{{192, "released", true},
                                                           {193, "released", false},
                                                           {32, "released", true},
                                                           {31, "released", false},
                                                           {192, "intended", false}}) {
    const Qkv x = synthetic_qkv(25, 2, 1, n, 64);
    nlohmann::json all = kSmallAnchor;
    all["semantics"] = semantics;
    const auto method = make_method("anchor", all, MethodEnv{ModelShape{"test", 1, 2, 1, 64}});
    AttentionEngine engine(*method, *backend, *clock, n);
    const at::Tensor out = engine.prefill(0, x);
    EXPECT_EQ(out.abs().max().item<double>() == 0, zero) << semantics << " " << n;
    EXPECT_GT(engine.mean_density(), 0) << "the work is done and counted";
  }
}

TEST(FlashPrefill2Method, RoutesAGroupTogetherAndCarriesTheMeans) {
  const Qkv x = synthetic_qkv(24, 6, 2, 700, 64);
  const AttentionPlan plan =
      plan_of("flashprefill2", {{"alpha", 1.0}, {"window", 1}, {"sink", 1}, {"last", 0}}, x);
  EXPECT_EQ(plan.tiles.q_tile, 32) << "three query heads share a key head: 32 tokens of 3 heads fit 128 rows";
  for (int h = 0; h < 6; ++h) EXPECT_EQ(plan.heads[size_t(h)].index, h / 3);
  ASSERT_TRUE(plan.complement.has_value());
  EXPECT_EQ(plan.complement->k_mean.sizes(), (std::vector<int64_t>{2, 6, 64}));
  EXPECT_EQ(plan.complement->v_mean.scalar_type(), at::kBFloat16);
  at::Tensor mean = x.v[1].narrow(0, 640, 60).to(at::kFloat).mean(0);
  EXPECT_LT(worst(plan.complement->v_mean[1][5].to(at::kFloat), mean), 0.02)
      << "the last block has 60 tokens";
  const AttentionPlan plain = plan_of("flashprefill2", {{"alpha", 1.0}, {"mean_correction", false}}, x);
  EXPECT_FALSE(plain.complement.has_value());
}

TEST(FlashPrefill2Method, TheCorrectionBringsTheOutputNearerToDense) {
  const Qkv x = synthetic_qkv(25, 4, 2, 1000, 64, at::kFloat);
  nlohmann::json p = {{"alpha", 1.0}, {"window", 1}, {"sink", 1}, {"last", 0}, {"block", 64}};
  const at::Tensor with = attended(x, plan_of("flashprefill2", p, x));
  p["mean_correction"] = false;
  const at::Tensor without = attended(x, plan_of("flashprefill2", p, x)), full = dense(x);
  EXPECT_LT((with - full).abs().mean().item<double>(), 0.9 * (without - full).abs().mean().item<double>());
}

TEST(PrismMethod, OneBandOfAllDimensionsNeedsNoCalibration) {
  const Qkv x = synthetic_qkv(26, 2, 1, 500, 64, at::kFloat);
  nlohmann::json p = {{"bands", "full"}, {"block", 32}, {"p", 0.7}};
  const AttentionPlan with = plan_of("prism", p, x);
  p["calibrate"] = false;
  const AttentionPlan without = plan_of("prism", p, x);
  for (int h = 0; h < 2; ++h) EXPECT_TRUE(at::equal(tiles_of(with, h, 500), tiles_of(without, h, 500)));
  p["bands"] = "low";
  EXPECT_LT(density(plan_of("prism", p, x), 500)[0], 1);
}

TEST(UniSparseMethod, WithSingleTokensItRanksBlocksByTrueMass) {
  const int64_t n = 200;
  const Qkv x = synthetic_qkv(27, 2, 1, n, 64, at::kFloat);
  const AttentionPlan plan =
      plan_of("unisparse", {{"block", 16}, {"c_q", 1}, {"c_k", 1}, {"select", "top_k"}, {"k", 4}}, x);
  at::Tensor future = at::ones({n, n}, at::kBool).triu(1);
  at::Tensor probs = (at::matmul(x.q[1], x.k[0].t()) * x.scale).masked_fill(future, -INFINITY).softmax(-1);
  at::Tensor mass = at::constant_pad_nd(probs, {0, 8, 0, 8}).view({13, 16, 13, 16}).sum({1, 3});
  at::Tensor got = tiles_of(plan, 1, n);
  for (int64_t r = 4; r < 13; ++r) {
    at::Tensor row = mass[r].clone();
    row[0] = row[r] = 1e9;
    at::Tensor want = at::zeros({13}, at::kBool);
    want.index_fill_(0, std::get<1>(row.topk(4)), true);
    EXPECT_TRUE(at::equal(got[r], want)) << "row " << r;
  }
}

TEST(SpargeMethod, BlocksThatAreNotUniformAreComputedWhole) {
  const Qkv x = synthetic_qkv(28, 2, 1, 700, 64);
  for (double d : density(plan_of("sparge", {{"similarity", 1.0}, {"topk", 0.05}}, x), 700))
    EXPECT_NEAR(d, 1, 1e-9);
  EXPECT_LT(density(plan_of("sparge", {{"gate", false}, {"topk", 0.05}}, x), 700)[0], 0.5);
}

TEST(SaleMethod, TauZeroIsDenseAndATableSetsItPerHead) {
  const Qkv x = synthetic_qkv(29, 2, 1, 900, 64);
  EXPECT_NEAR(density(plan_of("sale", {{"tau", 0}, {"dense_below", 0}}, x), 900)[0], 1, 1e-9);
  const auto file = std::filesystem::temp_directory_path() / str("prefillbench_sale_", getpid(), ".json");
  std::ofstream(file) << R"({"method": "sale", "layers": 1, "q_heads": 2, "thresholds": [[0, 1]]})";
  const auto d = density(plan_of("sale", {{"thresholds", file.string()}, {"dense_below", 0}}, x), 900);
  EXPECT_NEAR(d[0], 1, 1e-9);
  EXPECT_LT(d[1], 0.9);
  std::filesystem::remove(file);
}

TEST(PbsMethod, WithoutPermutationColumnsAreWholeBlocks) {
  const int64_t n = 500;
  const Qkv x = synthetic_qkv(30, 2, 1, n, 64);
  nlohmann::json p = {{"block", 32}, {"segment", 64}, {"p", 0.4}, {"permute", false}};
  const AttentionPlan plain = plan_of("pbs", p, x);
  at::Tensor columns = columns_of(plain, 1, n);
  for (int64_t b = 0; b < n / 32; ++b) {
    at::Tensor block = columns.narrow(1, b * 32, 32);
    EXPECT_TRUE(at::equal(block.all(1), block.any(1)));
  }
  p["permute"] = true;
  at::Tensor moved = columns_of(plan_of("pbs", p, x), 1, n);
  EXPECT_FALSE(at::equal(columns, moved));
  EXPECT_TRUE(moved.narrow(0, 2, moved.size(0) - 2).select(1, 0).all().item<bool>())
      << "the block of token 0 is kept";
}

TEST(TriangleMixMethod, LayersCanBeNamed) {
  const Qkv x = synthetic_qkv(31, 2, 1, 40, 64);
  EXPECT_EQ(plan_of("trianglemix", {{"starting_layer", 2}}, x, 1).heads[0].kind, Route::dense);
  EXPECT_EQ(plan_of("trianglemix", {{"starting_layer", 2}}, x, 2).heads[0].kind, Route::window);
  EXPECT_EQ(plan_of("trianglemix", {{"layers", {0, 3}}}, x, 3).heads[0].kind, Route::window);
  EXPECT_EQ(plan_of("trianglemix", {{"layers", {0, 3}}}, x, 2).heads[0].kind, Route::dense);
}

/// Threshold tables in both published forms, and what is said of broken ones.
class ThresholdTable : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    path_ = (std::filesystem::temp_directory_path() / str("prefillbench_", getpid(), "_", name)).string();
    std::ofstream(path_) << text;
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::vector<double> densities(int layer = 1) {
    return density(plan_of("xattention", {{"thresholds", path_}, {"block", 32}, {"stride", 8}}, x_, layer),
                   x_.seq_len());
  }
  std::string complaint() {
    try {
      densities();
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  }
  const Qkv x_ = synthetic_qkv(32, 2, 1, 600, 64);
  std::string path_;
};

TEST_F(ThresholdTable, ReadsTheReleasedPythonListOfTheStride) {
  write("table.py",
        "llama_fuse_4 = [[1.0, 1.0], [1.0, 1.0]]\n\nllama_fuse_8 = [[5.8125e-01, 0.0000e+00], [0.0000e+00, "
        "1.0000e+00]]\n");
  const auto d = densities();
  EXPECT_LT(d[0], 0.5);
  EXPECT_NEAR(d[1], 1, 1e-9);
}

TEST_F(ThresholdTable, ReadsJsonLists) {
  write("table.json", "[[0.5, 0.5], [1, 0]]");
  const auto d = densities();
  EXPECT_NEAR(d[0], 1, 1e-9);
  EXPECT_LT(d[1], 0.5);
}

TEST_F(ThresholdTable, SaysWhatIsWrong) {
  write("table.json", "[[0.5, 0.5]]");
  EXPECT_NE(complaint().find("1 layers, this model has 2 layers of 2 query heads"), std::string::npos)
      << complaint();
  write("table.json", "[[0.5, 0.5], [0.5, 1.5]]");
  EXPECT_NE(complaint().find("layer 1 head 1: 1.5 is not a number in [0, 1]"), std::string::npos)
      << complaint();
  write("table.json", "[[0.5, 0.5], [0.5");
  EXPECT_NE(complaint().find("not valid JSON"), std::string::npos) << complaint();
  write("table.json", R"({"layers": 32, "thresholds": []})");
  EXPECT_NE(complaint().find("made for layers = 32, here it is 2"), std::string::npos) << complaint();
  write("table.py", "llama_fuse_4 = [[1.0, 1.0], [1.0, 1.0]]\n");
  EXPECT_NE(complaint().find("no list whose name ends in _8; there is llama_fuse_4"), std::string::npos)
      << complaint();
  std::filesystem::remove(path_);
}

}  // namespace
}  // namespace prefill
