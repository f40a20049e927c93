// Plan files: what is written reads back as the same computation, and anybody's broken file is refused by
// name.
#include "core/plan_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/backend.h"
#include "core/base/text.h"
#include "core/model/safetensors.h"
#include "core/qkv_file.h"
#include "core/recall.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;

class PlanFile : public testing::Test {
 protected:
  PlanFile() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    path_ = (fs::temp_directory_path() / str("prefill_plan_", info->name(), ".safetensors")).string();
  }
  ~PlanFile() override { fs::remove(path_); }
  std::string path_;
};

/// 3 heads over 10 tokens with 4x4 tiles: dense, a window, tiles with a column.
AttentionPlan mixed() {
  AttentionPlan p;
  p.heads = {{Route::dense, 0}, {Route::window, 0}, {Route::tiles, 0}};
  p.windows = {{1, 3, 0}};
  p.tiles.q_tile = p.tiles.k_tile = 4;
  p.tiles.tile_ptr = at::tensor({0, 1, 2, 3}, at::kInt).unsqueeze(0);
  p.tiles.tile_idx = at::tensor({0, 1, 2, 77}, at::kInt).unsqueeze(0);  // 77: capacity past the last pointer
  p.tiles.col_rows = 2;
  p.tiles.col_ptr = at::tensor({0, 0, 2}, at::kInt).unsqueeze(0);
  p.tiles.col_idx = at::tensor({2, 5}, at::kInt).unsqueeze(0);
  return p;
}

TEST_F(PlanFile, ReadsBackAsTheSameKeys) {
  const AttentionPlan plan = mixed();
  const ExpandedPlan expanded = expand_plan(plan, 10);
  EXPECT_EQ(expanded.left_out, "");
  write_plan_file(path_, expanded.plan, 10, {{"method", "by hand"}});
  const AttentionPlan back = read_plan_file(path_, 3, 10);
  const at::Tensor before = token_mask(plan, 10), after = token_mask(back, 10);
  EXPECT_TRUE(at::equal(after[0], before[0]));
  EXPECT_TRUE(at::equal(after[2], before[2]));
  // The window is written as whole tiles: no key of it is lost, and no tile is there without one of its keys.
  EXPECT_FALSE((before[1] & after[1].logical_not()).any().item<bool>());
  for (int64_t r = 0; r < 10; r += 4)
    for (int64_t c = 0; c <= r; c += 4) {
      auto any = [&](const at::Tensor& m) {
        return m.slice(0, r, std::min<int64_t>(10, r + 4))
            .slice(1, c, std::min<int64_t>(10, c + 4))
            .any()
            .item<bool>();
      };
      EXPECT_EQ(any(after[1]), any(before[1])) << "tile " << r / 4 << "," << c / 4;
    }
}

TEST_F(PlanFile, TilesThatStartAnywhereBecomeAlignedOnesAndColumns) {
  AttentionPlan p = AttentionPlan::uniform(2, {Route::tiles, 0});
  p.tiles.q_tile = 8;
  p.tiles.k_tile = 4;
  p.tiles.k_step = 1;
  p.tiles.tile_ptr = at::tensor({0, 2, 5, 9}, at::kInt).unsqueeze(0);
  p.tiles.tile_idx = at::tensor({0, 4, 3, 8, 12, 2, 6, 11, 16}, at::kInt).unsqueeze(0);
  p.tiles.col_ptr = at::tensor({0, 0, 1, 2}, at::kInt).unsqueeze(0);
  p.tiles.col_idx = at::tensor({1, 0}, at::kInt).unsqueeze(0);
  check(p, 2, 18);
  const ExpandedPlan expanded = expand_plan(p, 18);
  EXPECT_EQ(expanded.left_out, "");
  EXPECT_TRUE(expanded.plan.tiles.aligned());
  write_plan_file(path_, expanded.plan, 18);
  EXPECT_TRUE(at::equal(token_mask(read_plan_file(path_, 2, 18), 18), token_mask(p, 18)));
  // keys 2 to 9 of the last row fill tile 1 of 4 keys
  EXPECT_TRUE(at::equal(tile_mask(expanded.plan.tiles, 0, 18)[2],
                        at::tensor({0, 1, 0, 0, 1}, at::kInt).to(at::kBool)));
}

TEST_F(PlanFile, ResumedPlansAreUnited) {
  AttentionPlan first;
  first.heads = {{Route::tiles, 0}};
  first.tiles.q_tile = first.tiles.k_tile = 4;
  first.tiles.tile_ptr = at::tensor({0, 1, 2, 4}, at::kInt).unsqueeze(0);
  first.tiles.tile_idx = at::tensor({0, 1, 0, 2}, at::kInt).unsqueeze(0);
  AttentionPlan second = first;
  second.tiles.tile_ptr = at::zeros({1, 4}, at::kInt);
  second.tiles.tile_idx = at::zeros({1, 1}, at::kInt);
  second.tiles.col_ptr = at::tensor({0, 0, 1, 2}, at::kInt).unsqueeze(0);
  second.tiles.col_idx = at::tensor({3, 6}, at::kInt).unsqueeze(0);
  second.resume = PartialSoftmax{};
  second.resume->covered = std::make_shared<AttentionPlan>(first);
  write_plan_file(path_, expand_plan(second, 12).plan, 12);
  EXPECT_TRUE(at::equal(token_mask(read_plan_file(path_, 1, 12), 12), token_mask(second, 12)));
}

/// Two passes over 16 tokens in 4x4 tiles, rows in groups of two; the second names columns of group 1.
AttentionPlan counted_twice(const std::vector<int32_t>& columns) {
  AttentionPlan first;
  first.heads = {{Route::tiles, 0}};
  first.tiles.q_tile = first.tiles.k_tile = 4;
  first.tiles.tile_ptr = at::tensor({0, 1, 2, 4, 6}, at::kInt).unsqueeze(0);
  first.tiles.tile_idx = at::tensor({0, 1, 0, 2, 0, 3}, at::kInt).unsqueeze(0);
  AttentionPlan second = first;
  second.tiles.tile_ptr = at::zeros({1, 5}, at::kInt);
  second.tiles.tile_idx = at::zeros({1, 1}, at::kInt);
  second.tiles.col_rows = 2;
  second.tiles.col_ptr = at::tensor({0, 0, int(columns.size())}, at::kInt).unsqueeze(0);
  second.tiles.col_idx = at::tensor(columns, at::kInt).unsqueeze(0);
  second.resume = PartialSoftmax{};
  second.resume->covered = std::make_shared<AttentionPlan>(first);
  second.resume->overlap_allowed = true;
  return second;
}

TEST_F(PlanFile, KeysCountedTwiceStandInTheFileOnce) {
  const AttentionPlan plan = counted_twice({1, 3, 5, 6});
  const ExpandedPlan expanded = expand_plan(plan, 16);
  EXPECT_NE(expanded.left_out.find("2 columns"), std::string::npos) << expanded.left_out;
  write_plan_file(path_, expanded.plan, 16);
  EXPECT_TRUE(at::equal(token_mask(read_plan_file(path_, 1, 16), 16), token_mask(plan, 16)));
  // Without the method's own word that it counts twice, the columns stay, and check() refuses them.
  AttentionPlan mistake = plan;
  mistake.resume->overlap_allowed = false;
  EXPECT_THROW(check(expand_plan(mistake, 16).plan, 1, 16), BrokenPlan);
}

TEST_F(PlanFile, RefusesColumnsThatOnlySomeRowsCountTwice) {
  AttentionPlan plan = counted_twice({1, 5});
  AttentionPlan first = *plan.resume->covered;
  first.tiles.tile_ptr = at::tensor({0, 1, 2, 4, 5}, at::kInt).unsqueeze(0);
  first.tiles.tile_idx = at::tensor({0, 1, 0, 2, 3}, at::kInt).unsqueeze(0);  // row 3 without tile 0
  plan.resume->covered = std::make_shared<AttentionPlan>(first);
  EXPECT_THROW(expand_plan(plan, 16), Unsupported);
}

/// Writes a sound file for 1 head and 8 tokens after `change` has had its way, and returns what reading it
/// says.
std::string complaint(const std::string& path,
                      const std::function<void(std::map<std::string, at::Tensor>&,
                                               std::map<std::string, std::string>&)>& change) {
  std::map<std::string, at::Tensor> t = {{"tile_ptr", at::tensor({0, 1, 2}, at::kInt).unsqueeze(0)},
                                         {"tile_idx", at::tensor({0, 1}, at::kInt).unsqueeze(0)},
                                         {"col_ptr", at::tensor({0, 0, 1}, at::kInt).unsqueeze(0)},
                                         {"col_idx", at::tensor({2}, at::kInt).unsqueeze(0)}};
  std::map<std::string, std::string> meta = {{"block_q", "4"}, {"block_k", "4"}, {"col_group", "4"}};
  change(t, meta);
  write_safetensors(path, {t.begin(), t.end()}, meta);
  try {
    read_plan_file(path, 1, 8);
  } catch (const InputError& e) {
    return e.what();
  }
  return "";
}

TEST_F(PlanFile, RefusesWhatIsWrongByName) {
  auto expect = [&](const std::vector<std::string>& parts, auto change) {
    const std::string text = complaint(path_, change);
    EXPECT_NE(text.find(path_), std::string::npos) << text;
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
  };
  EXPECT_EQ(complaint(path_, [](auto&, auto&) {}), "");
  expect({"block_q"}, [](auto&, auto& m) { m.erase("block_q"); });
  expect({"block_k", "four"}, [](auto&, auto& m) { m["block_k"] = "four"; });
  expect({"col_group", "6"}, [](auto&, auto& m) { m["col_group"] = "6"; });
  expect({"seq_len", "9", "8"}, [](auto&, auto& m) { m["seq_len"] = "9"; });
  expect({"tile_ptr"}, [](auto& t, auto&) { t.erase("tile_ptr"); });
  expect({"tile_ptr", "Long"}, [](auto& t, auto&) { t["tile_ptr"] = t["tile_ptr"].to(at::kLong); });
  expect({"tile_ptr", "[1, 2]"}, [](auto& t, auto&) { t["tile_ptr"] = at::zeros({1, 2}, at::kInt); });
  expect({"tile_ptr", "head 0", "falls"}, [](auto& t, auto&) {
    t["tile_ptr"] = at::tensor({0, 2, 1}, at::kInt).unsqueeze(0);
  });
  expect({"tile_ptr", "head 0", "starts at 1"}, [](auto& t, auto&) {
    t["tile_ptr"] = at::tensor({1, 1, 2}, at::kInt).unsqueeze(0);
  });
  expect({"tile_ptr", "row 1", "tile_idx"}, [](auto& t, auto&) {
    t["tile_ptr"] = at::tensor({0, 1, 3}, at::kInt).unsqueeze(0);
  });
  expect({"tile_idx", "head 0", "row 0", "tile 1"}, [](auto& t, auto&) {
    t["tile_idx"] = at::tensor({1, 1}, at::kInt).unsqueeze(0);
  });
  expect({"tile_idx", "head 0", "row 1", "5"}, [](auto& t, auto&) {
    t["tile_idx"] = at::tensor({0, 5}, at::kInt).unsqueeze(0);
  });
  expect({"tile_idx", "head 0", "row 1"}, [](auto& t, auto&) {
    t["tile_idx"] = at::tensor({0, 0}, at::kInt).unsqueeze(0);
  });
  expect({"col_idx", "head 0", "column 4"},
         [](auto& t, auto&) { t["col_idx"] = at::tensor({4}, at::kInt).unsqueeze(0); });
  expect({"col_idx", "head 0", "column -1"},
         [](auto& t, auto&) { t["col_idx"] = at::tensor({-1}, at::kInt).unsqueeze(0); });
  expect({"col_idx", "column 2"}, [](auto& t, auto&) {
    t["tile_ptr"] = at::tensor({0, 1, 3}, at::kInt).unsqueeze(0);
    t["tile_idx"] = at::tensor({0, 0, 1}, at::kInt).unsqueeze(0);
  });
}

class Capture : public testing::Test {
 protected:
  Capture()
      : path_((fs::temp_directory_path() / str("prefill_capture_",
                                               testing::UnitTest::GetInstance()->current_test_info()->name(),
                                               ".safetensors"))
                  .string()) {}
  ~Capture() override { fs::remove(path_); }
  void write(const std::map<std::string, std::string>& metadata) {
    write_safetensors(path_,
                      {{"layer.3.q", at::randn({4, 9, 16})},
                       {"layer.3.k", at::randn({2, 9, 16})},
                       {"layer.3.v", at::randn({2, 9, 16})}},
                      metadata);
  }
  std::string path_;
};

TEST_F(Capture, SaysItsModelAndScale) {
  write({{"model", "toy"}, {"model_layers", "5"}, {"scale", "0.5"}, {"rope_theta", "8e6"}});
  const QkvFile file(path_);
  EXPECT_EQ(file.layer(3).scale, 0.5);
  const ModelShape m = file.model(3);
  EXPECT_EQ(m.id, "toy");
  EXPECT_EQ(m.layers, 5);
  EXPECT_EQ(m.q_heads, 4);
  EXPECT_EQ(m.kv_heads, 2);
  EXPECT_EQ(m.head_dim, 16);
  EXPECT_EQ(m.rope_theta, 8e6);
}

TEST_F(Capture, MayBeSilent) {
  write({});
  EXPECT_EQ(QkvFile(path_).layer(3).scale, 0.25);
  EXPECT_EQ(QkvFile(path_).model(3).layers, 0);
  EXPECT_EQ(QkvFile(path_).model(3).rope_theta, 0);
}

TEST_F(Capture, RefusesMetadataThatIsNoNumber) {
  for (const char* scale : {"half", "-1", "nan", "1x"}) {
    write({{"scale", scale}});
    EXPECT_THROW(QkvFile(path_).layer(3), InputError) << scale;
  }
}

// Recall by two row sums against the softmax added up over the mask.
TEST(Recall, EqualsTheMassOnTheMask) {
  at::manual_seed(4);
  const Qkv a{at::randn({3, 10, 64}), at::randn({1, 10, 64}), at::randn({1, 10, 64}), 0.125};
  const AttentionPlan plan = mixed();
  const auto recall = mass_recall(*backends().at("cpu-ref").make(), a, plan);
  const at::Tensor future = at::ones({10, 10}, at::kBool).triu(1);
  const at::Tensor probs = (at::matmul(a.q, a.k.transpose(1, 2)) * a.scale)
                               .masked_fill(future, -std::numeric_limits<double>::infinity())
                               .softmax(-1);
  const at::Tensor expected = (probs * token_mask(plan, 10)).sum(-1).mean(-1);
  ASSERT_EQ(recall.size(), 3u);
  for (int h = 0; h < 3; ++h)
    EXPECT_NEAR(recall[size_t(h)], expected[h].item<double>(), 1e-5) << "head " << h;
}

}  // namespace
}  // namespace prefill
