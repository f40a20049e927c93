// Estimators against loops over tokens, in float32.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "methods/parts/scores.h"
#include "tests/methods2/synthetic.h"

namespace prefill {
namespace {

using testing::synthetic_qkv;

double sum_of_products(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) * b.to(at::kDouble)).sum().item<double>();
}

TEST(Scores, BlockMeansCountTheTailOrPadIt) {
  at::Tensor x = at::arange(10, at::kFloat).view({1, 10, 1});
  EXPECT_TRUE(at::equal(block_means(x, 4).view({3}), at::tensor({1.5f, 5.5f, 8.5f})));
  EXPECT_TRUE(at::equal(block_means(x, 4, TailMean::over_block).view({3}), at::tensor({1.5f, 5.5f, 4.25f})));
}

TEST(Scores, TileEnergyIsTheSumOfExponentialsOfVisibleQueries) {
  const Qkv x = synthetic_qkv(3, 4, 2, 75, 16, at::kFloat);
  const TileGrid grid{75, 16, 16};
  at::Tensor kbar = block_means(x.k, 16);
  for (Sees sees : {Sees::last_token, Sees::first_token}) {
    at::Tensor got = tile_energy(x.q, kbar, x.scale, grid, {.sees = sees});
    at::Tensor shared = tile_energy(x.q, kbar, x.scale, grid, {.sees = sees, .per_kv_head = true});
    for (int64_t r = 0; r < 5; ++r) {
      std::vector<double> pair(5, 0.0);
      double pair_peak = -1e30;
      for (int64_t h = 0; h < 2; ++h) {
        std::vector<double> want(5, 0.0);
        double peak = -1e30;
        auto visible = [&](int64_t i, int64_t c) {
          return i >= (sees == Sees::last_token ? c * 16 + 15 : c * 16);
        };
        for (int pass = 0; pass < 2; ++pass)
          for (int64_t i = r * 16; i < std::min<int64_t>(75, r * 16 + 16); ++i)
            for (int64_t c = 0; c < 5; ++c)
              if (visible(i, c)) {
                const double s = sum_of_products(x.q[h][i], kbar[0][c]) * x.scale;
                if (pass == 0)
                  peak = std::max(peak, s);
                else
                  want[size_t(c)] += std::exp(s - peak);
              }
        for (int64_t c = 0; c < 5; ++c)
          EXPECT_NEAR(got[h][r][c].item<double>(), want[size_t(c)], 1e-4) << h << r << c;
        const double joint = std::max(pair_peak, peak);
        for (int64_t c = 0; c < 5; ++c)
          pair[size_t(c)] =
              pair[size_t(c)] * std::exp(pair_peak - joint) + want[size_t(c)] * std::exp(peak - joint);
        pair_peak = joint;
      }
      for (int64_t c = 0; c < 5; ++c)
        EXPECT_NEAR(shared[0][r][c].item<double>(), pair[size_t(c)], 1e-4) << r << c;
    }
  }
}

/// Mass of tile (R, C) by loops: strided groups, antidiagonal or diagonal products, causal softmax over
/// groups.
TEST(Scores, AntidiagonalMassByLoops) {
  const int64_t n = 90, stride = 4, block = 16, groups = 23, per = 4, blocks = 6;
  const Qkv x = synthetic_qkv(5, 2, 1, n, 16, at::kFloat);
  auto row = [&](const at::Tensor& t, int64_t h, int64_t i) { return i < n ? t[h][i] : at::zeros({16}); };
  for (bool anti : {true, false}) {
    at::Tensor got = antidiagonal_mass(x.q, x.k, x.scale, block,
                                       {.stride = int(stride), .mode = anti ? "antidiagonal" : "diagonal"});
    for (int64_t h = 0; h < 2; ++h) {
      at::Tensor want = at::zeros({blocks, blocks}, at::kDouble);
      for (int64_t i = 0; i < groups; ++i) {
        std::vector<double> w;
        double total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double s = 0;
          for (int64_t m = 0; m < stride; ++m)
            s += sum_of_products(row(x.q, h, i * stride + (anti ? stride - 1 - m : m)),
                                 row(x.k, 0, j * stride + m));
          w.push_back(std::exp(s * x.scale / double(stride)));
          total += w.back();
        }
        for (int64_t j = 0; j <= i; ++j) want[i / per][j / per] += w[size_t(j)] / total;
      }
      EXPECT_LT((got[h].to(at::kDouble) - want).abs().max().item<double>(), 1e-4)
          << "head " << h << " anti " << anti;
    }
  }
}

TEST(Scores, MinMaxBoundIsAnUpperBoundThatSingleKeysReach) {
  const Qkv x = synthetic_qkv(6, 2, 1, 50, 16, at::kFloat);
  at::Tensor bound = minmax_bound(x.q, x.k, 8);
  for (int64_t i = 0; i < 50; i += 7)
    for (int64_t j = 0; j < 50; ++j)
      EXPECT_GE(bound[1][i][j / 8].item<double>() + 1e-4, sum_of_products(x.q[1][i], x.k[0][j]));
  at::Tensor exact = minmax_bound(x.q, x.k, 1);
  EXPECT_LT((exact[0] - x.q[0].matmul(x.k[0].t())).abs().max().item<double>(), 1e-4);
}

}  // namespace
}  // namespace prefill
