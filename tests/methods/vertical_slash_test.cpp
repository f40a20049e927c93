// The covers of vertical and slash lines against sets counted token by token.
#include "methods/parts/vertical_slash.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/base/text.h"
#include "methods/parts/tail.h"

namespace prefill {
namespace {

/// `count` of 0..n-1, ascending, `first` always among them.
std::vector<int32_t> some_of(int64_t n, int64_t count, int32_t first, std::mt19937& random) {
  std::vector<int32_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  std::shuffle(all.begin(), all.end(), random);
  all.resize(size_t(std::min(n, count)));
  if (std::find(all.begin(), all.end(), first) == all.end()) all.push_back(first);
  std::sort(all.begin(), all.end());
  return all;
}

at::Tensor mask_of(const HostPattern& p, int tile, int64_t n) {
  AttentionPlan plan = AttentionPlan::uniform(1, {Route::tiles, 0});
  plan.tiles = pack_patterns({p}, tile, tile, 1, at::kCPU);
  check(plan, 1, n);
  return token_mask(plan, n)[0];
}

TEST(VerticalSlash, CoversEveryLineAndWastesOnlyTilesThatASlashTouches) {
  std::mt19937 random(1);
  for (int64_t n : {1, 5, 63, 64, 65, 200, 333})
    for (int tile : {16, 64}) {
      const VerticalSlash vs{some_of(n, 12, 0, random), some_of(n, 5, 0, random)};
      const at::Tensor mask = mask_of(cover_vertical_slash(vs, tile, n), tile, n);
      SCOPED_TRACE(str("n=", n, " tile=", tile));
      auto has = [](const std::vector<int32_t>& v, int64_t x) {
        return std::binary_search(v.begin(), v.end(), int32_t(x));
      };
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j) {
          bool touched = false;  // by a slash, somewhere in this tile
          const int64_t r = i / tile * tile, c = j / tile * tile;
          for (int32_t d : vs.distances) touched |= d > r - c - tile && d < r - c + tile;
          ASSERT_EQ(mask[i][j].item<bool>(), touched || has(vs.columns, j)) << "query " << i << " key " << j;
        }
    }
}

TEST(VerticalSlash, AllHeadsAtOnceGiveTheSameLists) {
  std::mt19937 random(5);
  for (int64_t n : {1, 5, 63, 64, 65, 200, 1333})
    for (int tile : {16, 64}) {
      SCOPED_TRACE(str("n=", n, " tile=", tile));
      at::Tensor columns = at::zeros({3, n}, at::kBool), distances = at::zeros({3, n}, at::kBool);
      std::vector<HostPattern> want;
      int64_t most = 0;
      for (int h = 0; h < 3; ++h) {
        const VerticalSlash vs{some_of(n, h == 1 ? n : 12 + 5 * h, 0, random),
                               some_of(n, 1 + 4 * h, 0, random)};
        for (int32_t j : vs.columns) columns[h][j] = true;
        for (int32_t d : vs.distances) distances[h][d] = true;
        most = std::max(most, int64_t(vs.columns.size()));
        want.push_back(cover_vertical_slash(vs, tile, n));
      }
      const TileSet got = cover_vertical_slash(columns, distances, most, tile);
      for (int h = 0; h < 3; ++h) {
        const HostPattern& w = want[size_t(h)];
        auto same = [&](const at::Tensor& x, const std::vector<int32_t>& y) {
          return std::equal(y.begin(), y.end(), x.contiguous().data_ptr<int32_t>());
        };
        EXPECT_TRUE(same(got.tile_ptr[h], w.tile_ptr));
        EXPECT_TRUE(same(got.tile_idx[h], w.tile_idx));
        EXPECT_TRUE(same(got.col_ptr[h], w.col_ptr));
        EXPECT_TRUE(same(got.col_idx[h], w.col_idx));
      }
    }
}

// A second telling of the released conversion: the union of 64-wide windows, before merging, must be covered,
// and merging may add at most 63 keys in front of a window.
TEST(VerticalSlash, ReleasedRangesHoldEverySlashWindow) {
  std::mt19937 random(2);
  for (int64_t n : {1, 40, 64, 130, 257, 400}) {
    const VerticalSlash vs{some_of(n, 9, 0, random), some_of(n, 6, 0, random)};
    const at::Tensor mask = mask_of(cover_vertical_slash_released(vs, n), 64, n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t end = (i / 64 + 1) * 64;
      for (int64_t j = 0; j <= i; ++j) {
        bool wanted = std::binary_search(vs.columns.begin(), vs.columns.end(), int32_t(j)), near = false;
        for (int32_t d : vs.distances) {
          if (d >= end) continue;
          const int64_t to = std::max<int64_t>(end - d, 64);
          wanted |= j >= to - 64 && j < to;
          near |= j >= to - 64 && j < to + 63;
        }
        const bool got = mask[i][j].item<bool>();
        if (wanted) {
          ASSERT_TRUE(got) << "n " << n << " query " << i << " key " << j;
        }
        const bool diagonal = j / 64 == i / 64;
        if (got) {
          ASSERT_TRUE(wanted || near || diagonal) << "n " << n << " query " << i << " key " << j;
        }
      }
    }
  }
}

TEST(VerticalSlash, StripesOfBlocks) {
  const at::Tensor v = at::tensor({1, 0, 0, 0}, at::kInt).to(at::kBool).unsqueeze(0);
  const at::Tensor s = at::tensor({1, 0, 1, 0}, at::kInt).to(at::kBool).unsqueeze(0);
  const at::Tensor expected =
      at::tensor({1, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1}, at::kInt).view({1, 4, 4}).to(at::kBool);
  EXPECT_TRUE(at::equal(stripe_mask(v, s), expected));
}

TEST(Tail, CountsForMass) {
  const at::Tensor x = at::tensor({0.5f, 0.25f, 0.125f, 0.125f}).unsqueeze(0);
  auto count = [&](double mass, bool extra) { return count_for_mass(x, mass, extra)[0].item<int64_t>(); };
  EXPECT_EQ(count(0.4, false), 1);
  EXPECT_EQ(count(0.6, false), 2);
  EXPECT_EQ(count(0.75, false), 2);  // reached exactly
  EXPECT_EQ(count(0.75, true), 3);   // the released rule takes one more
  EXPECT_EQ(count(1.0, false), 4);
  EXPECT_EQ(count(1.0, true), 4);
}

TEST(Tail, DistanceBins) {
  const at::Tensor by_distance = at::arange(1, 8, at::kFloat).unsqueeze(0);  // distances 0..6 hold 1..7
  const at::Tensor near = distance_bins(by_distance, 3, false), far = distance_bins(by_distance, 3, true);
  EXPECT_TRUE(at::equal(near, at::tensor({6.f, 15.f, 7.f}).unsqueeze(0)));
  EXPECT_TRUE(at::equal(far, at::tensor({1.f, 9.f, 18.f}).unsqueeze(0)));  // 7 mod 3 = 1 distance in bin 0
}

TEST(Tail, JensenShannon) {
  const at::Tensor p = at::tensor({0.5f, 0.5f, 0.f}).unsqueeze(0),
                   q = at::tensor({0.f, 0.5f, 0.5f}).unsqueeze(0);
  EXPECT_NEAR(sqrt_js(p, q, false)[0].item<double>(), std::sqrt(0.5 * std::log(2.0)), 1e-6);
  EXPECT_TRUE(std::isnan(sqrt_js(p, q, true)[0].item<double>()));
  EXPECT_NEAR(sqrt_js(p, p, false)[0].item<double>(), 0, 1e-6);
}

}  // namespace
}  // namespace prefill
