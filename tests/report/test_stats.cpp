#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/report/stats.h"

namespace prefill {
namespace {

TEST(Stats, MedianOfOddAndEvenCounts) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(median({7}), 7);
  EXPECT_TRUE(std::isnan(median({})));
}

// Published tables of Student's t.
TEST(Stats, StudentQuantiles) {
  EXPECT_NEAR(t_quantile_975(1), 12.706, 1e-3);
  EXPECT_NEAR(t_quantile_975(9), 2.262, 1e-3);
  EXPECT_NEAR(t_quantile_975(10), 2.228, 1e-3);
  EXPECT_NEAR(t_quantile_975(30), 2.042, 1e-3);
  EXPECT_NEAR(t_quantile_975(1000000), 1.95996, 1e-4);
  EXPECT_NEAR(normal_cdf(1.959964), 0.975, 1e-6);
}

// The defining property: at the bounds, |p - bound| = z sqrt(bound (1 - bound) / n).
TEST(Stats, WilsonBoundsSolveTheScoreEquation) {
  for (int n : {1, 5, 10, 229})
    for (int k = 0; k <= n; k += std::max(1, n / 7)) {
      const Estimate e = wilson(k, n);
      for (double bound : {e.lo, e.hi}) {
        if (bound == 0 || bound == 1) continue;
        EXPECT_NEAR(std::abs(e.value - bound), 1.959963985 * std::sqrt(bound * (1 - bound) / n), 1e-9)
            << k << "/" << n;
      }
      EXPECT_LE(e.lo, e.value);
      EXPECT_GE(e.hi, e.value);
    }
  EXPECT_NEAR(wilson(5, 5).lo, 5 / (5 + 1.959963985 * 1.959963985), 1e-9);  // closed form for all right
  EXPECT_EQ(wilson(5, 5).hi, 1);
  EXPECT_EQ(wilson(0, 5).lo, 0);
}

double coverage(int n, Center center) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> draw(3.0, 1.0);  // mean and median are 3
  int hits = 0;
  const int experiments = 300;
  for (int e = 0; e < experiments; ++e) {
    std::vector<double> values(static_cast<size_t>(n));
    for (double& v : values) v = draw(random);
    const Estimate est = bootstrap({values}, center, static_cast<uint64_t>(e));
    hits += est.lo <= 3.0 && 3.0 <= est.hi;
  }
  return static_cast<double>(hits) / experiments;
}

TEST(Stats, BootstrapIntervalsHoldTheTruthAboutAsOftenAsTheySay) {
  EXPECT_GT(coverage(5, Center::mean),
            0.90);  // the plain percentile bootstrap holds it in about 0.83 of cases
  const double many = coverage(25, Center::mean);
  EXPECT_GT(many, 0.92);
  EXPECT_LT(many, 0.985);
  EXPECT_GT(coverage(15, Center::median), 0.91);
}

TEST(Stats, BootstrapIsReproducibleAndWeightsGroupsAlike) {
  const Strata groups = {{1, 2, 3, 4, 5, 6}, {10, 12}};
  const Estimate a = bootstrap(groups, Center::median), b = bootstrap(groups, Center::median);
  EXPECT_EQ(a.lo, b.lo);
  EXPECT_EQ(a.hi, b.hi);
  EXPECT_EQ(a.value, (3.5 + 11) / 2);
  EXPECT_EQ(a.n, 8);
}

TEST(Stats, OneValueHasNoInterval) {
  const Estimate e = bootstrap({{2.5}}, Center::median);
  EXPECT_EQ(e.value, 2.5);
  EXPECT_FALSE(e.has_interval());
  EXPECT_FALSE(bootstrap({}, Center::mean).known());
}

TEST(Stats, ScoresOfZeroAndOneUseWilsonAndOthersTheBootstrap) {
  const Estimate binary = score_estimate({{1, 1, 1, 0, 1}});
  EXPECT_DOUBLE_EQ(binary.lo, wilson(4, 5).lo);
  EXPECT_DOUBLE_EQ(binary.hi, wilson(4, 5).hi);
  const Estimate graded = score_estimate({{0.2, 0.4, 0.9}});
  EXPECT_NEAR(graded.value, 0.5, 1e-12);
  EXPECT_GE(graded.lo, 0.2);
  EXPECT_LE(graded.hi, 0.9);
}

// Two tasks of the same kind: the half width shrinks by sqrt(2).
TEST(Stats, TasksCombineByRecoveredVariances) {
  const Estimate one = score_estimate({{1, 1, 0, 1}}), two = score_estimate({{1, 1, 0, 1}, {1, 0, 1, 1}});
  EXPECT_NEAR(two.value - two.lo, (one.value - one.lo) / std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(two.hi - two.value, (one.hi - one.value) / std::sqrt(2.0), 1e-12);
}

std::vector<std::pair<double, double>> table(int both, int lost, int won, int neither) {
  std::vector<std::pair<double, double>> out;
  out.insert(out.end(), static_cast<size_t>(both), {1, 1});
  out.insert(out.end(), static_cast<size_t>(lost), {1, 0});
  out.insert(out.end(), static_cast<size_t>(won), {0, 1});
  out.insert(out.end(), static_cast<size_t>(neither), {0, 0});
  return out;
}

// Newcombe 1998 (paired), method 10: the table (e, f, g, h) = (36, 12, 2, 0) gives +0.2000 [0.0569, 0.3404].
// Our difference is after - before, so signs turn. Sparse tables stay inside [-1, 1].
TEST(Stats, SharesOfPositionsAreNoProportionOfSamples) {
  const Estimate answers = score_estimate({{1, 1, 1}});
  EXPECT_LT(answers.lo, 0.6);  // three right answers say little
  const Estimate shares = score_estimate({{1, 1, 1}}, ScoreKind::positions);
  EXPECT_DOUBLE_EQ(shares.value, 1);
  EXPECT_DOUBLE_EQ(shares.lo, 1);
  EXPECT_DOUBLE_EQ(shares.hi, 1);
  const Estimate moved = paired_difference({{{1, 0}, {1, 0}, {1, 0}}}, ScoreKind::positions);
  EXPECT_DOUBLE_EQ(moved.value, -1);
  EXPECT_DOUBLE_EQ(moved.lo, -1);
  EXPECT_DOUBLE_EQ(moved.hi, -1);
}

TEST(Stats, PairedIntervalAgreesWithNewcombesTable) {
  const Estimate e = paired_difference({table(36, 12, 2, 0)});
  EXPECT_NEAR(e.value, -0.2, 1e-9);
  EXPECT_NEAR(e.lo, -0.3404, 6e-4);
  EXPECT_NEAR(e.hi, -0.0569, 6e-4);
  const Estimate all = paired_difference({table(0, 5, 0, 0)});
  EXPECT_EQ(all.value, -1);
  EXPECT_GE(all.lo, -1);
  EXPECT_LT(all.hi, 0);
}

TEST(Stats, SignFlipEqualsMcNemarsExactTestForZeroOneScores) {
  std::vector<double> d(10, -1.0);
  d.push_back(1.0);
  // two-sided binomial: 2 (C(11,0) + C(11,1)) / 2^11
  EXPECT_NEAR(sign_flip_p(d), 2.0 * (1 + 11) / 2048, 1e-12);
  EXPECT_EQ(sign_flip_p({0, 0, 0}), 1);
  std::vector<double> many(40, 0.1);
  EXPECT_LT(sign_flip_p(many), 0.001);
}

TEST(Stats, Verdicts) {
  auto estimate = [](double value, double lo, double hi) { return Estimate{value, lo, hi, 20}; };
  EXPECT_EQ(score_verdict(estimate(-0.3, -0.5, -0.1), 6, 0.02), Verdict::worse);
  EXPECT_EQ(score_verdict(estimate(0.3, 0.1, 0.5), 6, 0.02), Verdict::better);
  EXPECT_EQ(score_verdict(estimate(0.0, -0.01, 0.01), 2, 0.02), Verdict::same);
  EXPECT_EQ(score_verdict(estimate(0.0, -0.4, 0.4), 0, 0.02), Verdict::same);
  EXPECT_EQ(score_verdict(estimate(0.0, -0.4, 0.4), 2, 0.02), Verdict::unclear);
  EXPECT_EQ(score_verdict(Estimate{}, 0, 0.02), Verdict::unclear);
  EXPECT_EQ(time_verdict(estimate(1.2, 1.1, 1.3), 0.03), Verdict::worse);
  EXPECT_EQ(time_verdict(estimate(0.8, 0.7, 0.9), 0.03), Verdict::better);
  EXPECT_EQ(time_verdict(estimate(1.01, 1.005, 1.02), 0.03), Verdict::same);
  EXPECT_EQ(time_verdict(estimate(1.0, 0.8, 1.2), 0.03), Verdict::unclear);
  EXPECT_EQ(time_verdict(Estimate{1.0}, 0.03), Verdict::unclear);
}

}  // namespace
}  // namespace prefill
