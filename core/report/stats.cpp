#include "core/report/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace prefill {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kZ = 1.959963984540054;  // 0.975 quantile of the standard normal
constexpr int kResamples = 2000;

/// Uniform index below n. Written out because std::uniform_int_distribution differs between libraries.
size_t pick(std::mt19937_64& random, size_t n) {
  return static_cast<size_t>((static_cast<unsigned __int128>(random()) * n) >> 64);
}

double center_of(std::vector<double>& values, Center center) {
  if (center == Center::mean) return mean(values);
  const size_t mid = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + mid, values.end());
  if (values.size() % 2) return values[mid];
  return 0.5 * (values[mid] + *std::max_element(values.begin(), values.begin() + mid));
}

/// Linear interpolation between order statistics of sorted values, p in [0, 1].
double quantile(const std::vector<double>& sorted, double p) {
  const double at = p * static_cast<double>(sorted.size() - 1);
  const size_t i = static_cast<size_t>(at);
  if (i + 1 >= sorted.size()) return sorted.back();
  return sorted[i] + (at - static_cast<double>(i)) * (sorted[i + 1] - sorted[i]);
}

bool zero_or_one(double x) { return x == 0 || x == 1; }

/// Mean of independent estimates with the variances their intervals imply (MOVER).
Estimate combine(const std::vector<Estimate>& parts) {
  Estimate out;
  if (parts.empty()) return out;
  double sum = 0, below = 0, above = 0;
  for (const Estimate& p : parts) {
    sum += p.value;
    below += (p.value - p.lo) * (p.value - p.lo);
    above += (p.hi - p.value) * (p.hi - p.value);
    out.n += p.n;
  }
  const double k = static_cast<double>(parts.size());
  out.value = sum / k;
  out.lo = out.value - std::sqrt(below) / k;
  out.hi = out.value + std::sqrt(above) / k;
  return out;
}

Estimate newcombe(const std::vector<std::pair<double, double>>& pairs) {
  double both = 0, lost = 0, won = 0, neither = 0;
  for (auto [before, after] : pairs)
    (before == 1 ? (after == 1 ? both : lost) : (after == 1 ? won : neither)) += 1;
  const int n = static_cast<int>(pairs.size());
  const Estimate before = wilson(static_cast<int>(both + lost), n),
                 after = wilson(static_cast<int>(both + won), n);
  const double p_before = (both + lost) / n, p_after = (both + won) / n;
  const double margins = (both + won) * (lost + neither) * (both + lost) * (won + neither);
  double phi = 0;  // correlation of the two scores, with Newcombe's continuity correction
  if (margins > 0) {
    double cross = both * neither - lost * won;
    if (cross > 0) cross = std::max(cross - n / 2.0, 0.0);
    phi = cross / std::sqrt(margins);
  }
  const double al = p_after - after.lo, au = after.hi - p_after, bl = p_before - before.lo,
               bu = before.hi - p_before;
  Estimate out;
  out.n = n;
  out.value = p_after - p_before;
  out.lo = std::max(-1.0, out.value - std::sqrt(std::max(0.0, al * al - 2 * phi * al * bu + bu * bu)));
  out.hi = std::min(1.0, out.value + std::sqrt(std::max(0.0, au * au - 2 * phi * au * bl + bl * bl)));
  return out;
}

}  // namespace

double median(std::vector<double> values) {
  return values.empty() ? kNaN : center_of(values, Center::median);
}

double mean(const std::vector<double>& values) {
  if (values.empty()) return kNaN;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

double t_quantile_975(int df) {
  static constexpr double table[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622};
  if (df < 1) return kNaN;
  if (df <= 9) return table[df - 1];
  // Cornish-Fisher expansion around the normal quantile
  const double v = df, z = kZ, z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v);
}

Estimate wilson(int successes, int n) {
  Estimate out;
  out.n = n;
  if (n <= 0) return out;
  const double p = static_cast<double>(successes) / n, z2 = kZ * kZ, denominator = 1 + z2 / n;
  const double middle = (p + z2 / (2.0 * n)) / denominator;
  const double half = kZ * std::sqrt(p * (1 - p) / n + z2 / (4.0 * n * n)) / denominator;
  out.value = p;
  out.lo = successes == 0 ? 0 : std::max(0.0, middle - half);
  out.hi = successes == n ? 1 : std::min(1.0, middle + half);
  return out;
}

Estimate bootstrap(const Strata& groups, Center center, uint64_t seed) {
  Estimate out;
  if (groups.empty()) return out;
  double sum = 0;
  int freedom = 0;
  bool enough = true;
  for (std::vector<double> group : groups) {
    if (group.empty()) return Estimate{};
    out.n += static_cast<int>(group.size());
    freedom += static_cast<int>(group.size()) - 1;
    enough = enough && group.size() >= 2;
    sum += center_of(group, center);
  }
  const double k = static_cast<double>(groups.size());
  out.value = sum / k;
  if (!enough) return out;

  std::mt19937_64 random(seed);
  std::vector<double> results(kResamples), draw;
  for (double& result : results) {
    double total = 0;
    for (const std::vector<double>& group : groups) {
      draw.resize(group.size());
      for (double& x : draw) x = group[pick(random, group.size())];
      total += center_of(draw, center);
    }
    result = total / k;
  }
  std::sort(results.begin(), results.end());
  const double widen = std::sqrt((freedom + 1.0) / freedom) * t_quantile_975(freedom);
  const double tail = normal_cdf(-widen);
  out.lo = quantile(results, tail);
  out.hi = quantile(results, 1 - tail);
  return out;
}

Estimate score_estimate(const Strata& groups, ScoreKind kind) {
  if (kind == ScoreKind::positions) return bootstrap(groups, Center::mean);
  std::vector<Estimate> parts;
  for (const std::vector<double>& group : groups) {
    if (group.empty()) return Estimate{};
    if (std::all_of(group.begin(), group.end(), zero_or_one))
      parts.push_back(wilson(static_cast<int>(std::count(group.begin(), group.end(), 1.0)),
                             static_cast<int>(group.size())));
    else
      parts.push_back(bootstrap({group}, Center::mean));
  }
  return combine(parts);
}

int score_digits(const Estimate& e) {
  const double size = std::abs(e.value);
  return (e.has_interval() ? e.hi - e.lo < 0.03 && size < 0.995 : size > 0 && size < 0.1) ? 3 : 2;
}

Estimate paired_difference(const PairedStrata& groups, ScoreKind kind) {
  if (kind == ScoreKind::positions) {
    Strata differences;
    for (const auto& group : groups) {
      differences.emplace_back();
      for (auto [before, after] : group) differences.back().push_back(after - before);
    }
    return bootstrap(differences, Center::mean);
  }
  std::vector<Estimate> parts;
  for (const auto& group : groups) {
    if (group.empty()) return Estimate{};
    bool binary = true;
    std::vector<double> differences;
    for (auto [before, after] : group) {
      binary = binary && zero_or_one(before) && zero_or_one(after);
      differences.push_back(after - before);
    }
    parts.push_back(binary ? newcombe(group) : bootstrap({differences}, Center::mean));
  }
  return combine(parts);
}

double sign_flip_p(const std::vector<double>& differences, uint64_t seed) {
  std::vector<double> d;
  for (double x : differences)
    if (x != 0) d.push_back(std::abs(x));
  if (d.empty()) return 1;
  const double observed =
      std::abs(std::accumulate(differences.begin(), differences.end(), 0.0)) * (1 - 1e-12);
  constexpr size_t exact_up_to = 16;
  uint64_t hits = 0, tries = 0;
  auto toss = [&](auto sign_bit) {
    double sum = 0;
    for (size_t i = 0; i < d.size(); ++i) sum += sign_bit(i) ? d[i] : -d[i];
    hits += std::abs(sum) >= observed;
    ++tries;
  };
  if (d.size() <= exact_up_to) {
    for (uint64_t bits = 0; bits < (uint64_t{1} << d.size()); ++bits)
      toss([&](size_t i) { return (bits >> i) & 1; });
    return static_cast<double>(hits) / static_cast<double>(tries);
  }
  std::mt19937_64 random(seed);
  for (int t = 0; t < 20000; ++t) toss([&](size_t) { return random() >> 63; });
  return static_cast<double>(hits + 1) /
         static_cast<double>(tries + 1);  // the observed pattern is one of them
}

std::string to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::better:
      return "BETTER";
    case Verdict::worse:
      return "WORSE";
    case Verdict::same:
      return "SAME";
    case Verdict::unclear:
      break;
  }
  return "UNCLEAR";
}

Verdict score_verdict(const Estimate& difference, int changed, double margin) {
  if (!difference.known()) return Verdict::unclear;
  if (changed == 0) return Verdict::same;
  if (!difference.has_interval()) return Verdict::unclear;
  if (difference.lo >= -margin && difference.hi <= margin) return Verdict::same;
  if (difference.lo > 0) return Verdict::better;
  if (difference.hi < 0) return Verdict::worse;
  return Verdict::unclear;
}

Verdict time_verdict(const Estimate& ratio, double margin) {
  if (!ratio.has_interval()) return Verdict::unclear;
  if (ratio.lo >= 1 / (1 + margin) && ratio.hi <= 1 + margin) return Verdict::same;
  if (ratio.hi < 1) return Verdict::better;
  if (ratio.lo > 1) return Verdict::worse;
  return Verdict::unclear;
}

}  // namespace prefill
