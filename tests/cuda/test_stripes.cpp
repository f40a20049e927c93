// FlexPrefill's steps on the GPU against the same steps in ATen on the CPU. Skips visibly where there is no GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/base/text.h"
#include "core/device_ops.h"
#include "core/engine.h"
#include "methods/parts/stripes.h"
#include "methods/parts/vertical_slash.h"

namespace prefill {
namespace {

#define NEED_STRIPE_DEVICE() \
  if (const Support s = backends().at("cuda").available(); !s) GTEST_SKIP() << s.why

struct Case {
  int64_t n;
  int q_heads, kv_heads, dim, block;
};
const std::vector<Case> kCases = {{300, 3, 1, 64, 32},   {1000, 8, 2, 64, 64},   {4097, 4, 4, 128, 128}, {5000, 8, 1, 80, 16},
                                  {20011, 6, 2, 128, 64}, {33000, 2, 1, 256, 128}};

Qkv random_qkv(const Case& c, uint64_t seed) {
  at::manual_seed(seed);
  Qkv a;
  a.q = at::randn({c.n, c.q_heads, c.dim}).to(at::kBFloat16).transpose(0, 1);
  a.k = at::randn({c.kv_heads, c.n, c.dim}).to(at::kBFloat16);
  a.v = a.k;
  a.scale = 3 / std::sqrt(double(c.dim));
  return a;
}
Qkv moved_to_gpu(const Qkv& a) {
  return {a.q.transpose(0, 1).contiguous().cuda().transpose(0, 1), a.k.cuda(), a.v.cuda(), a.scale};
}

/// Shares of keys and distances with long tails; every third head near its block-mean estimate.
TailStats random_tail(const Case& c, at::Tensor& from_means) {
  const auto shares = [&](double sharp) { return at::softmax(at::randn({c.q_heads, c.n}) * sharp, -1); };
  TailStats tail{shares(2.5), shares(3.5), 64};
  const at::Tensor bins = sum_bins(tail.vertical, c.block);
  from_means = at::softmax(at::randn(bins.sizes()), -1);
  for (int64_t h = 0; h < c.q_heads; h += 3) from_means[h] = 0.9 * bins[h] + 0.1 * from_means[h];
  return tail;
}

TEST(CudaStripes, LargestEntriesOfRows) {
  NEED_STRIPE_DEVICE();
  ASSERT_TRUE(cuda_ops().top_counts);
  at::manual_seed(8);
  for (const int64_t n : {1, 33, 4096, 12000, 12001, 70001})  // what fits shared memory, and what does not
    for (const int64_t forced : {0, 1, 100})
      for (const bool tied : {false, true}) {
        SCOPED_TRACE(str(n, " columns, ", forced, " forced, ", tied ? "ties" : "no ties"));
        at::Tensor x = at::rand({6, n}).pow(8);
        if (tied) x = (x * 50).round();
        const at::Tensor counts = at::cat({at::tensor({int64_t(0), int64_t(1), n}), at::randint(1, n + 1, {3}, at::kLong)});
        EXPECT_TRUE(top_counts(x.cuda(), counts.cuda(), forced).cpu().equal(top_counts(x, counts, forced)));
      }
}

TEST(CudaStripes, NumbersAndSets) {
  NEED_STRIPE_DEVICE();
  ASSERT_TRUE(cuda_ops().choose_stripes && cuda_ops().top_counts && cuda_ops().stripe_mask);
  for (const Case& c : kCases)
    for (const double tau : {0.0, 0.2})
      for (const double mass : {0.5, 0.9, 1.0}) {
        SCOPED_TRACE(str(c.n, " tokens, block ", c.block, ", tau ", tau, ", mass ", mass));
        at::manual_seed(uint64_t(c.n));
        at::Tensor means;
        const TailStats tail = random_tail(c, means), there{tail.vertical.cuda(), tail.slash.cuda(), tail.rows};
        StripeRules rules;
        rules.mass = mass, rules.block = rules.count_unit = c.block, rules.tau = tau;
        set_budgets(rules, 2 * c.block, 0, c.n);
        const StripeChoice want = choose_stripes(tail, means, rules), got = choose_stripes(there, means.cuda(), rules);
        EXPECT_TRUE(at::allclose(got.vertical.cpu(), want.vertical, 1e-5, 1e-7));
        EXPECT_TRUE(at::allclose(got.slash.cpu(), want.slash, 1e-5, 1e-7));
        ASSERT_EQ(got.aware.defined(), tau > 0);
        if (tau > 0) {
          EXPECT_TRUE(got.aware.cpu().equal(want.aware));
          EXPECT_EQ(want.aware.sum().item<int64_t>(), (c.q_heads + 2) / 3) << "the case is meant to have aware heads";
        }
        // a sum that reaches the mass in another order may need an entry more or fewer
        EXPECT_LE((got.verticals.cpu() - want.verticals).abs().max().item<int64_t>(), 1);
        EXPECT_LE((got.slashes.cpu() - want.slashes).abs().max().item<int64_t>(), 1);
        // ties among the scores, and counts of one to all
        StripeChoice tied = want;
        tied.vertical = (want.vertical * 2000).round() / 2000;
        tied.verticals = at::randint(1, want.vertical.size(1) + 1, {c.q_heads}, at::kLong);
        StripeChoice moved = tied;
        moved.vertical = tied.vertical.cuda(), moved.slash = tied.slash.cuda();
        moved.verticals = tied.verticals.cuda(), moved.slashes = tied.slashes.cuda();
        const StripeSets sets = take_stripes(tied), same = take_stripes(moved);
        EXPECT_TRUE(same.vertical.cpu().equal(sets.vertical));
        EXPECT_TRUE(same.slash.cpu().equal(sets.slash));
        EXPECT_TRUE(sets.vertical.select(1, 0).all().item<bool>());
        EXPECT_TRUE(stripe_mask(same.vertical, same.slash).cpu().equal(stripe_mask(sets.vertical, sets.slash)));
      }
}

TEST(CudaStripes, EstimateFromBlockMeans) {
  NEED_STRIPE_DEVICE();
  const auto cpu = backends().at("cpu-ref").make(), cuda = backends().at("cuda").make();
  for (const Case& c : kCases) {
    SCOPED_TRACE(str(c.n, " tokens, head_dim ", c.dim, ", block ", c.block));
    const Qkv a = random_qkv(c, 5), g = moved_to_gpu(a);
    for (int64_t rows : {int64_t(1), int64_t(c.block), std::min<int64_t>(c.n, 200)}) {
      const at::Tensor want = block_mean_estimate(a, cpu->pool_mean(a.k, c.block), rows);
      const at::Tensor got = block_mean_estimate(g, cuda->pool_mean(g.k, c.block), rows);
      EXPECT_LT((got.cpu() - want).abs().max().item<double>(), 1e-5) << rows << " rows";
    }
  }
}

TEST(CudaStripes, QueryAwareBlocksWithoutTheHost) {
  NEED_STRIPE_DEVICE();
  const auto cpu = backends().at("cpu-ref").make(), cuda = backends().at("cuda").make();
  const auto clock = make_cpu_clock();
  for (const Case& c : kCases)
    for (const double mass : {0.3, 0.9, 1.0}) {
      SCOPED_TRACE(str(c.n, " tokens, head_dim ", c.dim, ", block ", c.block, ", mass ", mass));
      const Qkv a = random_qkv(c, 9), g = moved_to_gpu(a);
      StripeRules rules;
      rules.mass = mass, rules.block = c.block, rules.tau = 0.1;
      const int64_t blocks = (c.n + c.block - 1) / c.block;
      at::Tensor aware = at::zeros({c.q_heads}, at::kBool);
      aware[0] = true, aware[c.q_heads - 1] = true;
      const at::Tensor before = (at::rand({c.q_heads, blocks, blocks}) < 0.05).tril();
      at::Tensor want = before.clone(), got = before.cuda();
      add_query_aware_blocks({a, 0, c.n, *cpu, *clock}, cpu->pool_mean(a.k, c.block), aware, rules, want);
      ASSERT_TRUE(cuda_ops().add_aware_blocks(g.q, cuda->pool_mean(g.k, c.block), aware.cuda(), g.scale, c.block, mass, got));
      const at::Tensor back = got.cpu();
      EXPECT_LE((back != want).sum().item<int64_t>(), 2 + want.numel() / 20000) << "cells";
      EXPECT_GT((want != before).sum().item<int64_t>(), 0) << "the case is meant to add cells";
      if (c.q_heads > 2) {
        EXPECT_TRUE(back[1].equal(before[1])) << "a head that is not query-aware is left alone";
      }
      EXPECT_FALSE(back.triu(1).any().item<bool>());
    }
}

/// Equal cells go by their place, so that the same plan comes out every time.
TEST(CudaStripes, EqualCellsOfTheMapGoInOrder) {
  NEED_STRIPE_DEVICE();
  const int64_t n = 640, block = 64, blocks = 10;
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  const at::Tensor q = at::zeros({1, n, 64}, options), means = at::ones({1, blocks, 64}, options.dtype(at::kFloat));
  const at::Tensor aware = at::ones({1}, options.dtype(at::kBool)), mask = at::zeros({1, blocks, blocks}, options.dtype(at::kBool));
  // every row is uniform: row r has r + 1 cells of 1 / (r + 1); 5.5 of 10 are the rows 0 to 4 and three sixths of row 5
  ASSERT_TRUE(cuda_ops().add_aware_blocks(q, means, aware, 1, block, 0.55, mask));
  at::Tensor want = at::ones({blocks, blocks}, at::kBool).tril();
  want.narrow(0, 6, 4).fill_(false);
  want[5].narrow(0, 3, 7).fill_(false);
  EXPECT_TRUE(mask[0].cpu().equal(want));
}

}  // namespace
}  // namespace prefill
