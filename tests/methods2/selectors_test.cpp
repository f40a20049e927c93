// Selectors and forced sets against brute force over small random scores.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "methods/parts/selectors.h"
#include "methods/parts/tile_grid.h"
#include "tests/methods2/synthetic.h"

namespace prefill {
namespace {

at::Tensor scores_of(int64_t heads, int64_t rows, int64_t cols) {
  at::Tensor s = at::empty({heads, rows, cols}, at::kFloat);
  float* p = s.data_ptr<float>();
  for (int64_t i = 0; i < s.numel(); ++i) p[i] = std::abs(testing::noise(99, i));
  return s;
}

/// Candidate columns of one row in falling order of score, forced ones first.
std::vector<int64_t> ranked(const at::Tensor& row, const at::Tensor& candidates, const at::Tensor& forced) {
  std::vector<int64_t> ids;
  for (int64_t c = 0; c < row.size(0); ++c)
    if (candidates[c].item<bool>()) ids.push_back(c);
  auto first = [&](int64_t c) { return forced.defined() && forced[c].item<bool>(); };
  std::stable_sort(ids.begin(), ids.end(), [&](int64_t a, int64_t b) {
    if (first(a) != first(b)) return first(a);
    return row[a].item<float>() > row[b].item<float>();
  });
  return ids;
}

struct Given {
  TileGrid grid{70, 8, 8};
  at::Tensor scores = scores_of(2, 9, 9), causal = causal_tiles(grid, at::kCPU),
             forced = forced_tiles(grid, {1, 1, 0}, at::kCPU);
};

TEST(Selectors, TopKTakesForcedFirstThenTheBest) {
  const Given g;
  for (int64_t k : {1, 3, 100}) {
    at::Tensor got = select_top_k(g.scores, k, g.causal, g.forced);
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t r = 0; r < 9; ++r) {
        const auto order = ranked(g.scores[h][r], g.causal[r], g.forced[r]);
        at::Tensor want = g.forced[r].clone();
        for (int64_t i = 0; i < std::min<int64_t>(k, int64_t(order.size())); ++i)
          want[order[size_t(i)]] = true;
        EXPECT_TRUE(at::equal(got[h][r], want)) << "k " << k << " head " << h << " row " << r;
      }
  }
}

/// Cumulative rule written as a loop.
at::Tensor top_p_row(const at::Tensor& row, double p, const at::Tensor& candidates, const at::Tensor& forced,
                     TopP how) {
  double total = 0, sum = 0;
  for (int64_t c = 0; c < row.size(0); ++c)
    if (candidates[c].item<bool>()) total += double(row[c].item<float>());
  at::Tensor out = forced.defined() ? forced.clone() : at::zeros_like(candidates);
  for (int64_t c : ranked(row, candidates, how.forced_head_start ? forced : at::Tensor())) {
    const double mass = double(row[c].item<float>());
    const bool keep = p >= 1 || (how.include_crossing ? sum < p * total : sum + mass <= p * total);
    if (keep) out[c] = true;
    sum += mass;
  }
  return out;
}

TEST(Selectors, TopPFollowsTheCumulativeRule) {
  const Given g;
  for (bool crossing : {true, false})
    for (bool head_start : {true, false})
      for (double p : {0.0, 0.4, 0.9, 1.0}) {
        const TopP how{crossing, head_start};
        at::Tensor got = select_top_p(g.scores, {p, p / 2}, g.causal, g.forced, how);
        for (int64_t h = 0; h < 2; ++h)
          for (int64_t r = 0; r < 9; ++r)
            EXPECT_TRUE(
                at::equal(got[h][r], top_p_row(g.scores[h][r], h ? p / 2 : p, g.causal[r], g.forced[r], how)))
                << "p " << p << " crossing " << crossing << " head start " << head_start << " head " << h
                << " row " << r;
      }
}

TEST(Selectors, ATargetOfOneKeepsTilesWithoutMass) {
  const Given g;
  EXPECT_TRUE(at::equal(select_top_p(at::zeros({1, 9, 9}), {1.0}, g.causal)[0], g.causal));
  EXPECT_FALSE(select_top_p(at::zeros({1, 9, 9}), {0.999}, g.causal).any().item<bool>());
}

TEST(Selectors, GlobalTopPRanksAllRowsTogether) {
  const Given g;
  at::Tensor got = select_top_p_global(g.scores, 0.5, g.causal, /*include_crossing=*/false);
  for (int64_t h = 0; h < 2; ++h) {
    at::Tensor flat = top_p_row(g.scores[h].reshape({81}), 0.5, g.causal.reshape({81}), {}, {false, false});
    EXPECT_TRUE(at::equal(got[h].reshape({81}), flat));
  }
}

TEST(Selectors, MaxRatioComparesWithTheRowsBestCandidate) {
  const Given g;
  at::Tensor got = select_max_ratio(g.scores, 0.6, g.causal);
  for (int64_t r = 0; r < 9; ++r) {
    float best = 0;
    for (int64_t c = 0; c <= r; ++c) best = std::max(best, g.scores[0][r][c].item<float>());
    for (int64_t c = 0; c < 9; ++c)
      EXPECT_EQ(got[0][r][c].item<bool>(), c <= r && g.scores[0][r][c].item<float>() >= best * 0.6f)
          << r << " " << c;
  }
}

TEST(TileGridTest, ForcedAndCausalTilesForUnequalTiles) {
  // 100 tokens, 32 queries by 16 keys: row 3 serves queries 96..99 and its diagonal tile is 6.
  const TileGrid grid{100, 32, 16};
  ASSERT_EQ(grid.rows(), 4);
  ASSERT_EQ(grid.cols(), 7);
  at::Tensor causal = causal_tiles(grid, at::kCPU), forced = forced_tiles(grid, {1, 2, 1}, at::kCPU);
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 7; ++c) {
      const int64_t first = r * 32, last = std::min<int64_t>(first + 32, 100) - 1;
      const bool visible = c * 16 <= last;
      EXPECT_EQ(causal[r][c].item<bool>(), visible);
      const bool want = visible && (c < 1 || c >= first / 16 - 1 || r == 3);
      EXPECT_EQ(forced[r][c].item<bool>(), want) << r << " " << c;
    }
}

}  // namespace
}  // namespace prefill
