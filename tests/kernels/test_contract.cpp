// What holds beyond the numbers: nothing outside the outputs is written, all inside is, the same plan gives
// the same bits on any number of threads, and what can not be computed is said to be so.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/adapters/views.h"
#include "tests/kernels/support.h"

namespace prefill::testing {
namespace {

using kernels::Status;

struct Guarded {
  static constexpr float kGuard = 12345.f;
  explicit Guarded(int64_t n) : all(n + 2 * kBand, kGuard) {
    for (int64_t i = 0; i < n; ++i) all[kBand + i] = std::nanf("");
  }
  float* data() { return all.data() + kBand; }
  bool bands_intact() const {
    for (int64_t i = 0; i < kBand; ++i)
      if (all[i] != kGuard || all[all.size() - 1 - i] != kGuard) return false;
    return true;
  }
  bool all_written() const {
    for (size_t i = kBand; i + kBand < all.size(); ++i)
      if (std::isnan(all[i])) return false;
    return true;
  }
  static constexpr int64_t kBand = 64;
  std::vector<float> all;
};

TEST(Contract, WritesAllOfItsOutputsAndNothingElse) {
  for (int64_t n : {1, 5, 64, 65, 333}) {
    SCOPED_TRACE(n);
    const Shape s{6, 2, n, 40};
    const Qkv a = random_qkv(s, 1);
    AttentionPlan plan = random_plan(s, {.columns = true}, 2);
    plan.want_tile_mean = {1, 1, 1, 1, 1, 1};
    const adapters::PlanArgs args(plan, a);
    const int64_t rows = (n + 63) / 64, gap = 24, stride = s.q_heads * s.dim + gap;
    Guarded out(n * stride), lse(6 * n), max(6 * n), sum(6 * n), acc(6 * n * s.dim), mean(6 * rows * rows);
    kernels::OutView view{};
    view.out = out.data();
    view.out_head_stride = s.dim;
    view.out_row_stride = stride;  // a gap after each row, which must stay as it is
    view.lse = lse.data();
    view.state_max = max.data();
    view.state_sum = sum.data();
    view.state_acc = acc.data();
    view.tile_mean = mean.data();
    view.want_tile_mean = plan.want_tile_mean.data();
    for (auto* attend : {+[](const kernels::QkvView&q, const kernels::PlanView&p, const kernels::OutView&o) {
                           return kernels::attend_cpu(q, p, o, 2);
                         },
                         &kernels::attend_reference}) {
      const kernels::Result r = attend(adapters::view(a), args.view, view);
      ASSERT_EQ(r.status, Status::ok) << r.why;
      for (Guarded* g : {&out, &lse, &max, &sum, &acc, &mean}) {
        EXPECT_TRUE(g->bands_intact());
        EXPECT_TRUE(g == &out || g->all_written());
      }
      for (int64_t i = 0; i < n; ++i)
        for (int64_t d = 0; d < stride; ++d)
          ASSERT_EQ(std::isnan(out.data()[i * stride + d]), d >= s.q_heads * s.dim)
              << "row " << i << " value " << d;
    }
  }
}

TEST(Contract, SamePlanSameBitsOnAnyNumberOfThreads) {
  const auto backend = backends().at("cpu").make();
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    const Shape s{8, 2, 700, 64, dtype};
    const Qkv a = random_qkv(s, 3);
    AttentionPlan plan = random_plan(s, {.columns = true}, 4);
    plan.want_tile_mean = {1, 0, 0, 1, 0, 0, 0, 0};
    const int before = at::get_num_threads();
    at::set_num_threads(1);
    const AttendResult one = backend->attend(a, plan, {.lse = true});
    for (int threads : {1, 2, 3, 7}) {
      at::set_num_threads(threads);
      const AttendResult again = backend->attend(a, plan, {.lse = true});
      EXPECT_TRUE(at::equal(one.out, again.out)) << threads << " threads";
      EXPECT_TRUE(at::equal(one.lse, again.lse)) << threads << " threads";
      EXPECT_TRUE(at::equal(one.tile_mean, again.tile_mean)) << threads << " threads";
    }
    at::set_num_threads(before);
  }
}

TEST(Contract, SaysWhatItCanNotCompute) {
  const auto cpu = backends().at("cpu").make(), ref = backends().at("cpu-ref").make(),
             sdpa = backends().at("torch-sdpa").make();
  const AttentionPlan dense = AttentionPlan::uniform(2, {Route::dense, 0});
  const Qkv odd = random_qkv({2, 1, 30, 20}, 5);
  EXPECT_NE(cpu->supports(odd, dense).why.find("head_dim 20"), std::string::npos);
  EXPECT_THROW(cpu->attend(odd, dense), Unsupported);
  EXPECT_TRUE(ref->supports(odd, dense).ok);
  EXPECT_LE(nmse(ref->attend(odd, dense).out, brute_force(odd, dense).out), nmse_bound(at::kFloat));

  const Qkv a = random_qkv({2, 1, 30, 16}, 6);
  EXPECT_NE(cpu->supports(a, AttentionPlan::uniform(3, {Route::dense, 0})).why.find("3 heads"),
            std::string::npos);
  EXPECT_FALSE(cpu->supports({a.q.to(at::kDouble), a.k.to(at::kDouble), a.v.to(at::kDouble), 1}, dense).ok);
  EXPECT_FALSE(cpu->supports({a.q.transpose(1, 2), a.k.transpose(1, 2), a.v.transpose(1, 2), 1}, dense).ok);
  EXPECT_FALSE(sdpa->supports(a, AttentionPlan::uniform(2, {Route::window, 0})).ok);
  EXPECT_THROW(sdpa->attend_partial(a, dense), Unsupported);
  AttentionPlan means = dense;
  means.want_tile_mean = {1, 0};
  EXPECT_FALSE(sdpa->supports(a, means).ok);
}

TEST(Contract, RefusesBrokenPlansInsteadOfReadingOutOfBounds) {
  const auto cpu = backends().at("cpu").make();
  const Shape s{2, 1, 200, 16};
  const Qkv a = random_qkv(s, 7);
  const AttentionPlan good = random_plan(s, {.columns = true, .mixed_routes = false}, 8);
  EXPECT_NO_THROW(cpu->attend(a, good));
  auto broken = [&](auto&& change) {
    AttentionPlan p = good;
    p.tiles.tile_ptr = good.tiles.tile_ptr.clone();
    p.tiles.tile_idx = good.tiles.tile_idx.clone();
    p.tiles.col_ptr = good.tiles.col_ptr.clone();
    p.tiles.col_idx = good.tiles.col_idx.clone();
    change(p);
    return p;
  };
  EXPECT_THROW(cpu->attend(a, broken([](auto& p) { p.tiles.tile_idx[1][0] = 4; })), BrokenPlan);
  EXPECT_THROW(cpu->attend(a, broken([](auto& p) { p.tiles.tile_idx[1][0] = -1; })), BrokenPlan);
  EXPECT_THROW(cpu->attend(a, broken([](auto& p) { p.tiles.tile_ptr[1][2] = 1 << 20; })), BrokenPlan);
  EXPECT_THROW(cpu->attend(a, broken([](auto& p) { p.tiles.col_ptr[0][1] = 1; })), BrokenPlan)
      << "no key precedes row 0";
  EXPECT_THROW(cpu->attend(a, broken([](auto& p) { p.heads[0].index = 2; })), BrokenPlan);
  EXPECT_THROW(cpu->attend(a, broken([](auto& p) { p.heads[0] = {Route::window, 3}; })), BrokenPlan);
}

TEST(Contract, TorchSdpaAgreesOnDense) {
  const auto sdpa = backends().at("torch-sdpa").make();
  const Qkv a = random_qkv({6, 2, 150, 64}, 9);
  const AttentionPlan dense = AttentionPlan::uniform(6, {Route::dense, 0});
  EXPECT_LE(nmse(sdpa->attend(a, dense).out, brute_force(a, dense).out), nmse_bound(at::kFloat));
  EXPECT_EQ(sdpa->kernel_name(a, dense).rfind("torch-sdpa-", 0), 0u);
}

}  // namespace
}  // namespace prefill::testing
