// A rank sees some of a model's heads. What a method plans for them must be what it plans for them among all:
// anything it keeps per head (files, seeds) goes by the head's number in the model.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/conformance/prompts.h"

namespace prefill::conformance {
namespace {

using nlohmann::json;

const Shape kWhole{389, 9, 3, 64, 3};
// two ranks of 2 and 1 groups
const std::vector<HeadRange> kRanks = {{0, 6}, {6, 3}};

const KernelBackend& reference() {
  static const auto made = backends().at("cpu-ref").make();
  return *made;
}

/// Token masks of all layers, of the heads of a range.
std::vector<at::Tensor> masks(const std::string& name, const json& params, HeadRange range) {
  MethodEnv env = env_of(kWhole);
  env.heads = range;
  const auto method = make_method(name, params, env);
  const auto clock = make_cpu_clock();
  const auto state = method->begin_prompt(kWhole.n);
  const int group = kWhole.q_heads / kWhole.kv_heads;
  std::vector<at::Tensor> out;
  for (int layer = 0; layer < kWhole.layers; ++layer) {
    Qkv qkv = planted(kWhole, 11, layer);
    if (range.count > 0) {
      qkv.q = qkv.q.narrow(0, range.first, range.count);
      qkv.k = qkv.k.narrow(0, range.first / group, range.count / group);
      qkv.v = qkv.v.narrow(0, range.first / group, range.count / group);
    }
    const LayerContext context{qkv, layer, kWhole.n, reference(), *clock};
    const AttentionPlan plan = method->plan(context, *state);
    check(plan, qkv.q_heads(), kWhole.n);
    method->observe(context, reference().attend(qkv, plan), *state);
    out.push_back(token_mask(plan, kWhole.n));
  }
  return out;
}

/// `differ`: the heads must not be alike, or the test would pass whatever numbers they are looked up by.
void expect_slices(const std::string& name, const json& params, bool differ) {
  SCOPED_TRACE(name + " " + params.dump());
  const std::vector<at::Tensor> whole = masks(name, params, {});
  for (const HeadRange& range : kRanks) {
    const std::vector<at::Tensor> part = masks(name, params, range);
    for (size_t layer = 0; layer < whole.size(); ++layer)
      EXPECT_TRUE(at::equal(part[layer], whole[layer].narrow(0, range.first, range.count)))
          << "layer " << layer << ", heads from " << range.first;
  }
  if (differ) {
    EXPECT_FALSE(at::equal(whole[1][0], whole[1][6]));
  }
}

class RankPlans : public testing::TestWithParam<std::string> {};

TEST_P(RankPlans, AreSlicesOfTheWholePlan) {
  const MethodInfo& info = methods().at(GetParam());
  expect_slices(info.name, json::object(), false);
  if (!info.test_params.empty()) expect_slices(info.name, json::parse(info.test_params), false);
}

std::vector<std::string> all_methods() {
  std::vector<std::string> names;
  for (const auto& [name, info] : methods().all()) names.push_back(name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Methods, RankPlans, testing::ValuesIn(all_methods()),
                         [](const auto& p) { return p.param; });

/// A file that goes with the test.
class HeadFile {
 public:
  explicit HeadFile(const json& content) {
    path_ =
        (std::filesystem::temp_directory_path() / ("prefill-ranks-" + std::to_string(::getpid()) + ".json"))
            .string();
    std::ofstream(path_) << content;
  }
  ~HeadFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// A table [layers][heads] of numbers that differ.
json table(double first, double step) {
  json rows = json::array();
  for (int l = 0; l < kWhole.layers; ++l) {
    rows.push_back(json::array());
    for (int h = 0; h < kWhole.q_heads; ++h) rows.back().push_back(first + step * (h + 0.3 * l));
  }
  return rows;
}

TEST(RankArtefacts, DrawsOfRandom) { expect_slices("random", {{"density", 0.5}, {"tile", 32}}, true); }

TEST(RankArtefacts, ThresholdsOfXAttention) {
  const HeadFile file(table(0.25, 0.07));
  expect_slices("xattention", {{"thresholds", file.path()}, {"block", 32}, {"stride", 8}}, true);
}

TEST(RankArtefacts, ThresholdsOfSale) {
  const HeadFile file(table(0.001, 0.03));
  expect_slices("sale", {{"thresholds", file.path()}, {"dense_below", 0}}, true);
}

TEST(RankArtefacts, PatternsOfMInference) {
  json layers = json::array();
  for (int l = 0; l < kWhole.layers; ++l) {
    layers.push_back(json::object());
    for (int h = 0; h < kWhole.q_heads; ++h) {
      const char* const kinds[] = {"vertical_and_slash", "stream_llm", "block_sparse"};
      layers.back()[std::to_string(h)] = {kinds[(h / 2 + l) % 3], 30 + 10 * h, 60 + 9 * h, 1.0};
    }
  }
  const HeadFile file(layers);
  expect_slices("minference", {{"pattern_file", file.path()}, {"forced_distances", 20}, {"block_topk", 2}},
                true);
}

/// Clusters that lie on one rank each share there as they share on one rank.
TEST(RankArtefacts, ClustersOfSharePrefill) {
  const HeadFile file(
      {{"clusters", {{"a", {{0, 1}, {1, 2}, {2, 5}}}, {"b", {{0, 7}, {1, 8}, {2, 6}, {2, 7}}}}},
       {"shared_clusters", {"a", "b"}},
       {"best_pivots", {{"a", {1, 2}}, {"b", {1, 8}}}}});
  json params = {{"lookup", file.path()},
                 {"min_budget", 32},
                 {"block_size", 32},
                 {"queryaware_threshold", 0.0},
                 {"similarity_threshold", 1.0},
                 {"fallback_threshold", 100.0},
                 {"pattern_threshold", 0.6}};
  expect_slices("shareprefill", params, true);
  // and that they shared at all
  json alone = params;
  alone["sharing"] = false;
  const at::Tensor with = masks("shareprefill", params, kRanks[1])[1],
                   without = masks("shareprefill", alone, kRanks[1])[1];
  EXPECT_FALSE(at::equal(with[2], without[2])) << "head 8 of layer 1 did not borrow";
  EXPECT_TRUE(at::equal(with[0], without[0]));
  params["pivot"] = "best";
  expect_slices("shareprefill", params, true);
  EXPECT_FALSE(at::equal(masks("shareprefill", params, kRanks[1])[1][2], with[2]))
      << "head 8 of layer 1 is the pivot now";
}

TEST(RankArtefacts, HeadsAveragedByUniSparseStayOnOneRank) {
  // 6 would suit the first rank's heads; all refuse, or one would wait for the other in vain
  for (int c_h : {6, 9})
    for (const HeadRange& range : kRanks)
      EXPECT_THROW(masks("unisparse", {{"block", 32}, {"c_q", 8}, {"c_k", 8}, {"c_h", c_h}}, range),
                   Unsupported);
  expect_slices("unisparse", {{"block", 32}, {"c_q", 8}, {"c_k", 8}, {"c_h", 3}}, true);
}

}  // namespace
}  // namespace prefill::conformance
