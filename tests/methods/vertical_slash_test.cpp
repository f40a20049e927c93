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

at::Tensor mask_of(const HostPattern& p, SlashTiles tiles, int64_t n) {
  AttentionPlan plan = AttentionPlan::uniform(1, {Route::tiles, 0});
  plan.tiles = pack_patterns({p}, tiles.q_tile, tiles.k_tile, 1, at::kCPU, 1);
  check(plan, 1, n);
  return token_mask(plan, n)[0];
}

TEST(VerticalSlash, CoversEveryLineAndWastesLittle) {
  std::mt19937 random(1);
  for (int64_t n : {1, 5, 63, 64, 65, 200, 333, 700})
    for (auto [q_tile, k_tile] : {SlashTiles{16, 64}, {64, 64}, {128, 64}, {128, 16}}) {
      const VerticalSlash vs{some_of(n, 12, 0, random), some_of(n, 5, 0, random)};
      const at::Tensor mask = mask_of(cover_vertical_slash(vs, {q_tile, k_tile}, n), {q_tile, k_tile}, n);
      SCOPED_TRACE(str("n=", n, " tiles ", q_tile, "x", k_tile));
      auto has = [](const std::vector<int32_t>& v, int64_t x) {
        return std::binary_search(v.begin(), v.end(), int32_t(x));
      };
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j) {
          const bool got = mask[i][j].item<bool>();
          const int64_t first = i / q_tile * q_tile,
                        last = first + q_tile - 1;  // also of a row that the end cuts
          if (has(vs.columns, j) || has(vs.distances, i - j)) {
            ASSERT_TRUE(got) << "query " << i << " key " << j;
          } else if (got && j < first) {
            // no further than a tile before a key that a slash crosses for one of the row's queries, or after
            // it where the tile would begin before the prompt
            bool near = false;
            for (int32_t d : vs.distances) near |= first - d < j + k_tile && last - d >= j;
            ASSERT_TRUE(near) << "query " << i << " key " << j;
          }
        }
    }
}

TEST(VerticalSlash, ColumnsSideBySideAreTiles) {
  VerticalSlash vs{{}, {0, 200}};
  for (int32_t j = 10; j < 150; ++j) vs.columns.push_back(j);
  const HostPattern p = cover_vertical_slash(vs, {64, 64}, 640);
  // Row 5, first query 320: the slash crosses keys 120 to 183, the 110 columns before it are a tile and 46
  // keys.
  EXPECT_EQ(std::vector<int32_t>(p.tile_idx.begin() + p.tile_ptr[5], p.tile_idx.begin() + p.tile_ptr[6]),
            (std::vector<int32_t>{10, 120, 320}));
  EXPECT_EQ(p.col_ptr[6] - p.col_ptr[5], 46);
  EXPECT_EQ(p.col_idx[size_t(p.col_ptr[5])], 74);
}

// The distances that tiles have from their row are made once a head; a second telling, key by key for one
// row: walking away from the row, a crossed key that no tile holds ends a tile.
TEST(VerticalSlash, EveryRowHasTheTilesOfItsOwnCrossings) {
  std::mt19937 random(9);
  for (auto [q_tile, k_tile] : {SlashTiles{64, 64}, {128, 64}, {128, 32}}) {
    const int64_t n = 1500;
    const VerticalSlash vs{{}, some_of(n, 20, 0, random)};
    const HostPattern p = cover_vertical_slash(vs, {q_tile, k_tile}, n);
    for (int64_t row = 0; row * q_tile < n; ++row) {
      const int64_t first = row * q_tile;
      std::vector<int32_t> want;
      for (int64_t key = first - 1; key >= 0;) {
        const bool crossed = std::any_of(vs.distances.begin(), vs.distances.end(), [&](int32_t d) {
          return key + d >= first && key + d < first + q_tile;
        });
        if (crossed && key - k_tile + 1 >= 0) want.push_back(int32_t(key - k_tile + 1));
        key -= crossed ? k_tile : 1;
      }
      std::reverse(want.begin(), want.end());
      for (int64_t key = first; key < std::min(n, first + q_tile); key += k_tile)
        want.push_back(int32_t(key));
      EXPECT_EQ(std::vector<int32_t>(p.tile_idx.begin() + p.tile_ptr[size_t(row)],
                                     p.tile_idx.begin() + p.tile_ptr[size_t(row) + 1]),
                want)
          << "row " << row << " of " << q_tile;
    }
  }
}

TEST(VerticalSlash, AllHeadsAtOnceGiveTheSameLists) {
  std::mt19937 random(5);
  for (int64_t n : {1, 5, 63, 64, 65, 200, 1333})
    for (const SlashTiles tiles : {SlashTiles{64, 64}, {128, 32}}) {
      SCOPED_TRACE(str("n=", n, " tiles ", tiles.q_tile, "x", tiles.k_tile));
      at::Tensor columns = at::zeros({3, n}, at::kBool), distances = at::zeros({3, n}, at::kBool);
      std::vector<HostPattern> want;
      int64_t most = 0;
      for (int h = 0; h < 3; ++h) {
        const VerticalSlash vs{some_of(n, h == 1 ? n : 12 + 5 * h, 0, random),
                               some_of(n, 1 + 4 * h, 0, random)};
        for (int32_t j : vs.columns) columns[h][j] = true;
        for (int32_t d : vs.distances) distances[h][d] = true;
        most = std::max(most, int64_t(vs.columns.size()));
        want.push_back(cover_vertical_slash(vs, tiles, n));
      }
      const TileSet got = cover_vertical_slash(columns, distances, most, tiles);
      EXPECT_EQ(got.step(), 1);
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
    const at::Tensor mask = mask_of(cover_vertical_slash_released(vs, n), {64, 64}, n);
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
