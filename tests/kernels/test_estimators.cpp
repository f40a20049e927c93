// The estimators of the base class against loops in double, and the cpu backend's against them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/support.h"

namespace prefill::testing {
namespace {

/// Only the base class' estimators.
class BaseOnly final : public KernelBackend {
 public:
  std::string name() const override { return "base"; }
  std::string kernel_name(const Qkv&, const AttentionPlan&) const override { return "none"; }
  at::Device device() const override { return at::kCPU; }
  Support supports(const Qkv&, const AttentionPlan&) const override { return {false, "estimators only"}; }
  AttendResult attend(const Qkv&, const AttentionPlan&, AttendOptions) const override { return {}; }
};

class Estimators : public ::testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<KernelBackend> backend =
      GetParam() == std::string("base") ? std::make_unique<BaseOnly>() : backends().at(GetParam()).make();
};

INSTANTIATE_TEST_SUITE_P(Backends, Estimators, ::testing::Values("base", "cpu"),
                         [](const auto& i) { return i.param; });

TEST_P(Estimators, PoolMean) {
  for (auto dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (int64_t n : {1, 63, 64, 130})
      for (int tile : {1, 16, 64, 128}) {
        SCOPED_TRACE(str("n ", n, " tile ", tile));
        const Qkv a = random_qkv({3, 1, n, 20, dtype}, 1, true);
        const auto got = backend->pool_mean(a.q, tile);
        ASSERT_EQ(got.scalar_type(), at::kFloat);
        ASSERT_EQ(got.sizes(), at::IntArrayRef({3, (n + tile - 1) / tile, 20}));
        const auto x = a.q.to(at::kDouble);
        for (int64_t t = 0; t * tile < n; ++t) {
          const auto want = x.slice(1, t * tile, std::min(n, (t + 1) * tile)).mean(1);
          EXPECT_LE((got.select(1, t) - want).abs().max().item<double>(), 2e-6);
        }
      }
}

at::Tensor expected_probs(const Qkv& a, int64_t tail) {
  const int64_t n = a.seq_len(), t = std::min(tail, n);
  auto logits =
      at::matmul(a.q.to(at::kDouble),
                 a.k.to(at::kDouble).repeat_interleave(a.q_heads() / a.kv_heads(), 0).transpose(1, 2)) *
      a.scale;
  logits.masked_fill_(at::ones({n, n}, at::kBool).triu(1), -INFINITY);
  return at::softmax(logits, -1).narrow(1, n - t, t);
}

TEST_P(Estimators, TailProbs) {
  for (auto dtype : {at::kFloat, at::kBFloat16})
    for (int64_t n : {1, 5, 64, 65, 333})
      for (int64_t tail : {1, 16, 64, 100, 1000}) {
        SCOPED_TRACE(str("n ", n, " tail ", tail));
        const Qkv a = random_qkv({4, 2, n, 24, dtype}, 2, true);
        const auto want = expected_probs(a, tail), got = backend->tail_probs(a, tail);
        ASSERT_EQ(got.scalar_type(), at::kFloat);
        ASSERT_EQ(got.sizes(), want.sizes());
        EXPECT_LE((got - want).abs().max().item<double>(), 2e-6);
      }
}

TEST_P(Estimators, TailSums) {
  for (int64_t n : {1, 5, 64, 65, 333})
    for (int64_t tail : {1, 16, 64, 100}) {
      SCOPED_TRACE(str("n ", n, " tail ", tail));
      const Qkv a = random_qkv({4, 2, n, 24}, 3);
      const auto probs = expected_probs(a, tail);
      const int64_t t = probs.size(1);
      auto slash = at::zeros({4, n}, at::kDouble);
      for (int64_t i = 0; i < t; ++i)
        for (int64_t j = 0; j <= n - t + i; ++j)
          slash.select(1, n - t + i - j) += probs.select(1, i).select(1, j);
      const auto [vertical, distances] = backend->tail_sums(a, tail);
      EXPECT_LE((vertical - probs.sum(1)).abs().max().item<double>(), 1e-5);
      EXPECT_LE((distances - slash).abs().max().item<double>(), 1e-5);
    }
}

TEST_P(Estimators, RefusesNothingToEstimate) {
  const Qkv a = random_qkv({2, 1, 10, 8}, 4);
  EXPECT_THROW(backend->tail_probs(a, 0), InputError);
  EXPECT_THROW(backend->pool_mean(a.q, 0), InputError);
}

}  // namespace
}  // namespace prefill::testing
