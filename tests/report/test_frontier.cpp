#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/report/frontier.h"

namespace prefill {
namespace {

Estimate around(double value, double half) { return {value, value - half, value + half, 10}; }

/// Sweep by rising cost: a point is on the frontier when it beats the best score of all cheaper ones.
std::vector<bool> sweep(const std::vector<FrontierPoint>& points) {
  std::vector<size_t> order(points.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(points[a].cost.value, -points[a].score.value) <
           std::pair(points[b].cost.value, -points[b].score.value);
  });
  std::vector<bool> on(points.size(), false);
  double best = -1, best_cost = -1;
  for (size_t i : order) {
    const double score = points[i].score.value, cost = points[i].cost.value;
    on[i] = score > best || (score == best && cost == best_cost);
    if (score > best) best = score, best_cost = cost;
  }
  return on;
}

TEST(Frontier, AgreesWithASortedSweepOnRandomPoints) {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> coarse(0, 8);  // coarse: many ties
  for (int round = 0; round < 200; ++round) {
    std::vector<FrontierPoint> points(1 + round % 15);
    for (FrontierPoint& p : points) p = {around(coarse(random), 0.01), around(coarse(random), 0.01)};
    const std::vector<bool> expected = sweep(points);
    const std::vector<FrontierClass> classes = classify(points);
    for (size_t i = 0; i < points.size(); ++i)
      EXPECT_EQ(classes[i] == FrontierClass::on_frontier, expected[i]) << "round " << round << " point " << i;
  }
}

TEST(Frontier, NoiseOnBothAxesKeepsAPointInPlay) {
  const FrontierPoint best{around(0.9, 0.1), around(1.0, 0.05)};
  const FrontierPoint close{around(0.85, 0.1), around(1.04, 0.05)};  // overlaps on both axes
  const FrontierPoint slow{around(0.9, 0.1), around(2.0, 0.05)};     // clearly slower
  const FrontierPoint poor{around(0.2, 0.1), around(1.02, 0.05)};    // clearly worse
  const auto c = classify({best, close, slow, poor});
  EXPECT_EQ(c[0], FrontierClass::on_frontier);
  EXPECT_EQ(c[1], FrontierClass::within_noise);
  EXPECT_EQ(c[2], FrontierClass::dominated);
  EXPECT_EQ(c[3], FrontierClass::dominated);
  EXPECT_TRUE(within_noise(best, close));
  EXPECT_FALSE(within_noise(best, slow));
}

TEST(Frontier, AnyClearDominatorIsEnough) {
  const FrontierPoint p{around(0.5, 0.1), around(2.0, 0.2)};
  const FrontierPoint near{around(0.55, 0.1), around(1.9, 0.2)}, clear{around(0.9, 0.1), around(1.0, 0.2)};
  EXPECT_EQ(classify({p, near})[0], FrontierClass::within_noise);
  EXPECT_EQ(classify({p, near, clear})[0], FrontierClass::dominated);
  EXPECT_EQ(classify({clear, near, p})[2], FrontierClass::dominated);
}

TEST(Frontier, UnknownPointsNeitherGetAClassNorDominate) {
  const FrontierPoint known{around(0.5, 0.1), around(2.0, 0.2)};
  FrontierPoint unknown{around(0.9, 0.1), Estimate{}};
  const auto c = classify({known, unknown});
  EXPECT_EQ(c[0], FrontierClass::on_frontier);
  EXPECT_EQ(c[1], FrontierClass::not_compared);
}

// Without intervals (one sample) nothing can be clearly better.
TEST(Frontier, SinglesAreNeverCalledDominated) {
  const FrontierPoint a{Estimate{1.0}, Estimate{1.0}}, b{Estimate{0.0}, Estimate{9.0}};
  EXPECT_EQ(classify({a, b})[1], FrontierClass::within_noise);
}

}  // namespace
}  // namespace prefill
