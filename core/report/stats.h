// Statistics of a report: estimates with 95 % intervals, paired comparisons and their verdicts. Everything
// random starts from a fixed seed, so that the same results give the same report.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace prefill {

/// A number and its 95 % interval. NaN bounds: the data do not carry an interval (fewer than two values).
struct Estimate {
  double value = std::numeric_limits<double>::quiet_NaN();
  double lo = std::numeric_limits<double>::quiet_NaN();
  double hi = std::numeric_limits<double>::quiet_NaN();
  int n = 0;  ///< values it rests on

  bool known() const { return value == value; }
  bool has_interval() const { return lo == lo && hi == hi; }
};

/// Values in groups that are weighted alike (one group per task).
using Strata = std::vector<std::vector<double>>;
/// (baseline, candidate) of the same sample, in groups.
using PairedStrata = std::vector<std::vector<std::pair<double, double>>>;

enum class Center { mean, median };

/// Middle value; mean of the two middle ones for an even count. NaN for no values.
double median(std::vector<double> values);
double mean(const std::vector<double>& values);

/// 0.975 quantile of Student's t with `df` >= 1 degrees of freedom (relative error below 0.1 %).
double t_quantile_975(int df);
/// Standard normal distribution function.
double normal_cdf(double x);

/// Wilson score interval of a proportion (E. B. Wilson, JASA 22, 1927), 95 %.
Estimate wilson(int successes, int n);

/// Mean over groups of each group's centre. Interval: percentile bootstrap, resampled within groups, with the
/// percentiles widened for small n as Student's t would (Hesterberg, "What Teachers Should Know About the
/// Bootstrap", 2015, "expanded percentile"). No interval when a group has fewer than two values.
Estimate bootstrap(const Strata& groups, Center center, uint64_t seed = 20250101);

/// What a score says: an answer, right, wrong or in part, or a share of a text's positions. A share is no
/// proportion of samples, not even where it is 1: dense agrees with itself for certain.
enum class ScoreKind { answers, positions };

/// Mean score over groups. Within a group: Wilson when all scores are answers of 0 or 1 (a bootstrap of five
/// perfect answers would claim certainty), else bootstrap of the mean. Groups are combined by recovered
/// variances (MOVER; Zou and Donner, Statistics in Medicine 27, 2008).
Estimate score_estimate(const Strata& groups, ScoreKind kind = ScoreKind::answers);

/// Decimals that a score, or a difference of scores, deserves in print: three where its
/// interval is narrow, or where it is small and has none.
int score_digits(const Estimate& e);

/// Mean of candidate - baseline over the same samples. Within a group: Newcombe's paired score interval
/// (Statistics in Medicine 17, 1998, method 10) for answers of 0 or 1, else bootstrap of the differences;
/// groups combined by MOVER.
Estimate paired_difference(const PairedStrata& groups, ScoreKind kind = ScoreKind::answers);

/// Two-sided p value of "the sign of each difference is a coin toss", statistic = |sum|: exact up to 16
/// non-zero differences (for 0/1 scores that is McNemar's exact test), else 20,000 random sign patterns. 1
/// without any.
double sign_flip_p(const std::vector<double>& differences, uint64_t seed = 20250101);

/// BETTER and WORSE: the 95 % interval excludes "no difference" and reaches outside the margin.
/// SAME: the interval lies inside the margin, or (scores only) not one paired sample changed.
/// UNCLEAR: everything else; more samples are needed to tell.
enum class Verdict { better, worse, same, unclear };
std::string to_string(Verdict verdict);

/// `difference` = candidate - baseline; higher is better. `changed`: number of pairs whose scores differ.
Verdict score_verdict(const Estimate& difference, int changed, double margin);
/// `ratio` = candidate / baseline time; lower is better; the margin is relative (0.03: within 3 % is SAME).
Verdict time_verdict(const Estimate& ratio, double margin);

}  // namespace prefill
