// Density and checks against brute force over token masks.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

#include "core/plan.h"

namespace prefill {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Random tiles with the diagonal, and random columns that lie outside the tiles of their whole group.
AttentionPlan random_plan(std::mt19937& rng, int64_t n, int heads) {
  auto pick = [&](auto... v) {
    const std::vector<int> all{v...};
    return all[rng() % all.size()];
  };
  AttentionPlan plan = AttentionPlan::uniform(heads, {Route::tiles, 0});
  TileSet& t = plan.tiles;
  const int q_tile = pick(16, 32, 64, 128), k_tile = pick(16, 32, 64, 128);
  const int64_t rows = ceil_div(n, q_tile), cols = ceil_div(n, k_tile), patterns = 1 + rng() % 3;
  at::Tensor mask = at::zeros({patterns, rows, cols}, at::kBool);
  auto m = mask.accessor<bool, 3>();
  for (int64_t p = 0; p < patterns; ++p)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = r * q_tile, last = std::min<int64_t>(n, first + q_tile) - 1;
      for (int64_t c = 0; c * k_tile <= last; ++c) m[p][r][c] = c >= first / k_tile || rng() % 3 == 0;
    }
  t = tiles_from_mask(mask, q_tile, k_tile);
  if (rng() % 2) {
    t.col_rows = 1 + int(rng() % 3);
    const int64_t groups = ceil_div(rows, t.col_rows), span = int64_t(q_tile) * t.col_rows;
    t.col_ptr = at::zeros({patterns, groups + 1}, at::kInt);
    t.col_idx = at::zeros({patterns, groups * n + 1}, at::kInt);
    auto ptr = t.col_ptr.accessor<int, 2>(), idx = t.col_idx.accessor<int, 2>();
    for (int64_t p = 0; p < patterns; ++p) {
      int at_ = 0;
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t j = 0; j < std::min(n, g * span); ++j) {
          bool in_tile = false;
          for (int64_t r = g * t.col_rows; r < std::min(rows, (g + 1) * t.col_rows); ++r)
            in_tile |= m[p][r][j / k_tile];
          if (!in_tile && rng() % 4 == 0) idx[p][at_++] = int(j);
        }
        ptr[p][g + 1] = at_;
      }
    }
  }
  plan.windows = {{int64_t(rng() % 40), int64_t(1 + rng() % 50), int64_t(rng() % 20)}};
  for (auto& route : plan.heads) {
    const int kind = int(rng() % 4);
    route = kind == 0   ? Route{Route::dense, 0}
            : kind == 1 ? Route{Route::window, 0}
                        : Route{Route::tiles, int32_t(rng() % uint64_t(patterns))};
  }
  return plan;
}

TEST(Plan, DensityIsTheShareOfVisiblePairs) {
  std::mt19937 rng(1);
  for (int round = 0; round < 200; ++round) {
    const int64_t n = 1 + int64_t(rng() % 300);
    const AttentionPlan plan = random_plan(rng, n, 4);
    ASSERT_NO_THROW(check(plan, 4, n)) << "round " << round;
    const at::Tensor mask = token_mask(plan, n);
    ASSERT_FALSE(mask.triu(1).any().item<bool>()) << "a query sees the future";
    const auto got = density(plan, n);
    for (int h = 0; h < 4; ++h)
      EXPECT_NEAR(got[size_t(h)], mask[h].sum().item<double>() / (double(n) * double(n + 1) / 2), 1e-12)
          << "round " << round << " head " << h << " n " << n;
    EXPECT_EQ(density(footprint(plan), n), got) << "a footprint keeps what density needs";
  }
}

/// Rows of tiles that start at random multiples of k_step, then those of the row's own queries.
AttentionPlan free_plan(std::mt19937& rng, int64_t n, int q_tile, int k_tile, int k_step) {
  AttentionPlan plan = AttentionPlan::uniform(1, {Route::tiles, 0});
  std::vector<int> ptr{0}, ids;
  for (int64_t first = 0; first < n; first += q_tile) {
    for (int64_t key = int64_t(rng() % 3) * k_step; key + k_tile <= first;
         key += k_tile + int64_t(rng() % 4) * k_step)
      ids.push_back(int(key / k_step));
    for (int64_t key = first; key < std::min(n, first + q_tile); key += k_tile)
      ids.push_back(int(key / k_step));
    ptr.push_back(int(ids.size()));
  }
  plan.tiles.q_tile = q_tile;
  plan.tiles.k_tile = k_tile;
  plan.tiles.k_step = k_step;
  plan.tiles.tile_ptr = at::tensor(ptr, at::kInt).unsqueeze(0);
  plan.tiles.tile_idx = at::tensor(ids, at::kInt).unsqueeze(0);
  return plan;
}

TEST(Plan, TilesMayStartAnywhere) {
  // Queries 8 to 11 of 12: keys 1 to 4 and their own.
  AttentionPlan plan = AttentionPlan::uniform(1, {Route::tiles, 0});
  plan.tiles.q_tile = plan.tiles.k_tile = 4;
  plan.tiles.k_step = 1;
  plan.tiles.tile_ptr = at::tensor({0, 1, 2, 4}, at::kInt).unsqueeze(0);
  plan.tiles.tile_idx = at::tensor({0, 4, 1, 8}, at::kInt).unsqueeze(0);
  ASSERT_NO_THROW(check(plan, 1, 12));
  const at::Tensor row = token_mask(plan, 12)[0][10];
  EXPECT_TRUE(at::equal(row.nonzero().flatten(), at::tensor({1, 2, 3, 4, 8, 9, 10}, at::kLong)));

  std::mt19937 rng(3);
  for (int round = 0; round < 200; ++round) {
    const int64_t n = 1 + int64_t(rng() % 300);
    const int k_tile = 16 << rng() % 3, k_step = 1 << rng() % 4, q_tile = 16 << rng() % 4;
    const AttentionPlan some = free_plan(rng, n, q_tile, k_tile, k_step);
    ASSERT_NO_THROW(check(some, 1, n)) << "round " << round;
    EXPECT_NEAR(density(some, n)[0],
                token_mask(some, n).sum().item<double>() / (double(n) * double(n + 1) / 2), 1e-12)
        << "round " << round << " n " << n << " tiles " << q_tile << "x" << k_tile << " step " << k_step;
    EXPECT_EQ(density(footprint(some), n), density(some, n));
  }
}

TEST(Plan, FullTilesHaveDensityOne) {
  for (int64_t n : {1, 63, 64, 65, 200}) {
    AttentionPlan plan = AttentionPlan::uniform(1, {Route::tiles, 0});
    const int64_t rows = ceil_div(n, 64);
    plan.tiles = tiles_from_mask(at::ones({1, rows, rows}, at::kBool).tril(), 64, 64);
    EXPECT_DOUBLE_EQ(density(plan, n)[0], 1.0) << n;
  }
}

AttentionPlan good_plan() {  // n = 100, tiles of 32, rows 0..3
  AttentionPlan plan = AttentionPlan::uniform(2, {Route::tiles, 0});
  at::Tensor mask = at::eye(4, at::kBool).unsqueeze(0).clone();
  mask[0][3][0] = true;
  plan.tiles = tiles_from_mask(mask, 32, 32);
  return plan;
}

void expect_broken(const AttentionPlan& plan, const std::string& word) {
  try {
    check(plan, 2, 100);
    FAIL() << "was not refused: " << word;
  } catch (const BrokenPlan& e) {
    EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
  }
}

TEST(Plan, ChecksNameWhatIsBroken) {
  ASSERT_NO_THROW(check(good_plan(), 2, 100));
  AttentionPlan p = good_plan();
  p.heads.pop_back();
  expect_broken(p, "routes 1 heads");
  p = good_plan();
  p.heads[1].index = 3;
  expect_broken(p, "pattern 3 of 1");
  p = good_plan();
  p.tiles.tile_idx[0][3] = 7;
  expect_broken(p, "outside [0, 4)");
  p = good_plan();
  p.tiles.tile_idx[0][0] = 1;
  expect_broken(p, "starts after the row's last query");
  p = good_plan();
  p.tiles.tile_idx[0][1] = 0;
  expect_broken(p, "would not see itself");
  p = good_plan();
  p.tiles.tile_idx[0][4] = 0;
  expect_broken(p, "ascend");
  p = good_plan();
  p.tiles.tile_ptr = p.tiles.tile_ptr.to(at::kLong);
  expect_broken(p, "int32");
  p = good_plan();
  p.tiles.col_ptr = at::tensor({0, 0, 0, 0, 1}, at::kInt).unsqueeze(0);
  p.tiles.col_idx = at::tensor({40}, at::kInt).unsqueeze(0);
  ASSERT_NO_THROW(check(p, 2, 100));
  p.tiles.col_idx = at::tensor({10}, at::kInt).unsqueeze(0);
  expect_broken(p, "count twice");
  p.tiles.col_idx = at::tensor({97}, at::kInt).unsqueeze(0);
  expect_broken(p, "before the group's first query");
}

TEST(Plan, ChecksTilesThatStartAnywhere) {
  auto broken = [](std::vector<int> last_row, const std::string& word) {
    AttentionPlan p = AttentionPlan::uniform(2, {Route::tiles, 0});
    p.tiles.q_tile = p.tiles.k_tile = 32;
    p.tiles.k_step = 1;
    std::vector<int> ids{0, 32, 64};
    ids.insert(ids.end(), last_row.begin(), last_row.end());
    p.tiles.tile_ptr = at::tensor({0, 1, 2, 3, int(ids.size())}, at::kInt).unsqueeze(0);
    p.tiles.tile_idx = at::tensor(ids, at::kInt).unsqueeze(0);
    if (word.empty())
      EXPECT_NO_THROW(check(p, 2, 100));
    else
      expect_broken(p, word);
  };
  broken({3, 40, 96}, "");
  broken({3, 20, 96}, "overlaps tile 3");
  broken({3, 70, 96}, "must start at its first query 96");
  broken({3, 40}, "would not see itself");
  broken({97}, "must start at its first query 96");
  broken({3, 100}, "outside [0, 100)");
  AttentionPlan p = good_plan();
  p.tiles.k_step = 24;
  expect_broken(p, "k_step 24 must divide");
}

TEST(Plan, ResumedPassesMustBeDisjoint) {
  const int64_t n = 100;
  auto first = std::make_shared<AttentionPlan>(AttentionPlan::uniform(1, {Route::window, 0}));
  first->windows = {{8, 32, 0}};
  AttentionPlan second = AttentionPlan::uniform(1, {Route::tiles, 0});
  second.tiles.q_tile = second.tiles.k_tile = 32;
  second.tiles.tile_ptr = at::zeros({1, 5}, at::kInt);
  second.tiles.tile_idx = at::zeros({1, 1}, at::kInt);
  second.tiles.col_ptr = at::tensor({0, 0, 0, 1, 2}, at::kInt).unsqueeze(0);
  second.tiles.col_idx = at::tensor({12, 20}, at::kInt).unsqueeze(0);
  second.resume = PartialSoftmax{{}, {}, {}, first};
  ASSERT_NO_THROW(check(second, 1, n));
  EXPECT_NEAR(density(second, n)[0], token_mask(second, n).sum().item<double>() / (double(n) * (n + 1) / 2),
              1e-12);
  second.tiles.col_idx = at::tensor({12, 3}, at::kInt).unsqueeze(0);
  EXPECT_THROW(check(second, 1, n), BrokenPlan);
}

}  // namespace
}  // namespace prefill
