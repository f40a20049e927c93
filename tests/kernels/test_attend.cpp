// cpu and cpu-ref against brute force, over shapes, dtypes and every feature of a plan.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>

#include "tests/kernels/support.h"

namespace prefill::testing {
namespace {

class Attend : public ::testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<KernelBackend> backend = backends().at(GetParam()).make();

  void expect_right(const Qkv& a, const AttentionPlan& plan) {
    const Support s = backend->supports(a, plan);
    ASSERT_TRUE(s.ok) << s.why;
    const Expected want = brute_force(a, plan);
    const AttendResult got = backend->attend(a, plan, {.lse = true});
    EXPECT_EQ(got.out.scalar_type(), a.q.scalar_type());
    EXPECT_LE(nmse(got.out, want.out), nmse_bound(a.q.scalar_type()));
    EXPECT_LE((got.lse - want.lse).abs().max().item<double>(), lse_bound(a));
    EXPECT_TRUE(got.out.transpose(0, 1).reshape({a.seq_len(), -1}).is_alias_of(got.out))
        << "[N, Hq*D] must be a view, not a copy";
  }

  /// Logits reach about 6; float32 dot products and the sum's logarithm lose a few ulps of that. The AMX path
  /// sums probabilities after rounding them to bfloat16 or before: either way within 2^-9 of the sum.
  static double lse_bound(const Qkv& a) { return a.q.scalar_type() == at::kFloat ? 1e-5 : 4e-3; }
};

INSTANTIATE_TEST_SUITE_P(Backends, Attend, ::testing::Values("cpu", "cpu-ref"),
                         [](const auto& i) { return i.param == std::string("cpu") ? "cpu" : "cpu_ref"; });

TEST_P(Attend, DenseOfAnyLength) {
  for (int64_t n : {1, 2, 5, 15, 16, 17, 63, 64, 65, 127, 128, 129, 333, 1000}) {
    SCOPED_TRACE(n);
    expect_right(random_qkv({3, 1, n, 64}, 1), AttentionPlan::uniform(3, {Route::dense, 0}));
  }
}

TEST_P(Attend, EveryHeadDim) {
  for (int dim : {8, 16, 24, 32, 64, 80, 96, 128, 256}) {
    SCOPED_TRACE(dim);
    const Shape s{4, 2, 150, dim};
    expect_right(random_qkv(s, 2), random_plan(s, {.columns = true}, 3));
  }
}

TEST_P(Attend, EveryGroupSize) {
  for (int group : {1, 3, 4, 8})
    for (bool mixed : {false, true}) {
      SCOPED_TRACE(group);
      const Shape s{2 * group, 2, 210, 32};
      expect_right(random_qkv(s, 4), random_plan(s, {.columns = true, .mixed_routes = mixed}, 5));
      expect_right(random_qkv(s, 4), AttentionPlan::uniform(2 * group, {Route::dense, 0}));
    }
}

TEST_P(Attend, TilesOfEverySize) {
  const std::pair<int, int> sizes[] = {{16, 16}, {32, 32},  {64, 64},  {128, 128}, {256, 256}, {64, 32},
                                       {32, 64}, {128, 64}, {64, 128}, {16, 256},  {256, 16},  {48, 80}};
  for (auto [q_tile, k_tile] : sizes)
    for (int64_t n : {1, 65, 333, 640})
      for (bool columns : {false, true}) {
        SCOPED_TRACE(str(q_tile, "x", k_tile, " n ", n, " columns ", columns));
        const Shape s{5, 1, n, 16};
        const AttentionPlan plan =
            random_plan(s, {.q_tile = q_tile, .k_tile = k_tile, .columns = columns, .patterns = 3}, 6);
        check(plan, s.q_heads, n);
        expect_right(random_qkv(s, 7), plan);
      }
}

TEST_P(Attend, TilesThatStartAnywhere) {
  for (auto dtype : {at::kFloat, at::kBFloat16})
    for (auto [q_tile, k_tile, k_step] :
         {std::array{64, 64, 1}, {128, 64, 1}, {32, 64, 8}, {64, 16, 1}, {48, 32, 4}})
      for (int64_t n : {1, 65, 333, 640}) {
        SCOPED_TRACE(str(q_tile, "x", k_tile, " step ", k_step, " n ", n, " ", at::toString(dtype)));
        const Shape s{6, 2, n, 32, dtype};
        AttentionPlan plan = random_plan(
            s, {.q_tile = q_tile, .k_tile = k_tile, .k_step = k_step, .columns = true, .patterns = 3}, 26);
        check(plan, s.q_heads, n);
        const Qkv a = random_qkv(s, 27);
        expect_right(a, plan);
        plan.want_tile_mean = {1, 0, 1, 1, 0, 1};
        const auto want = brute_force(a, plan).tile_mean.index_select(0, at::tensor({0, 2, 3, 5}));
        const double bound = dtype == at::kFloat ? 2e-6 : 2e-3;
        EXPECT_LE((backend->attend(a, plan).tile_mean - want).abs().max().item<double>(), bound);
      }
}

TEST_P(Attend, ColumnsSharedByRows) {
  for (int col_rows : {1, 2, 3, 16})
    for (int64_t n : {5, 64, 333, 1000}) {
      SCOPED_TRACE(str("col_rows ", col_rows, " n ", n));
      const Shape s{2, 1, n, 32};
      const AttentionPlan plan = random_plan(
          s, {.q_tile = 32, .k_tile = 32, .density = 0.1, .columns = true, .col_rows = col_rows}, 8);
      check(plan, s.q_heads, n);
      expect_right(random_qkv(s, 9), plan);
    }
}

TEST_P(Attend, Windows) {
  for (const Window& w :
       {Window{0, 1, 0}, {1, 1, 0}, {4, 20, 0}, {64, 64, 64}, {0, 130, 1}, {500, 7, 0}, {3, 5, 999}})
    for (int64_t n : {1, 63, 64, 333, 500}) {
      SCOPED_TRACE(str("sink ", w.sink, " local ", w.local, " last ", w.last, " n ", n));
      AttentionPlan plan = AttentionPlan::uniform(2, {Route::window, 0});
      plan.windows = {w};
      expect_right(random_qkv({2, 2, n, 32}, 10), plan);
    }
}

TEST_P(Attend, HalfPrecision) {
  for (auto dtype : {at::kBFloat16, at::kHalf})
    for (int64_t n : {1, 63, 64, 65, 333, 700})
      for (int dim : {16, 64, 80, 128}) {
        SCOPED_TRACE(str(at::toString(dtype), " n ", n, " dim ", dim));
        const Shape s{5, 1, n, dim, dtype};
        expect_right(random_qkv(s, 11), random_plan(s, {.columns = true, .patterns = 2}, 12));
      }
}

TEST_P(Attend, StridedInputs) {
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    const Shape s{6, 2, 200, 64, dtype};
    expect_right(random_qkv(s, 13, true), random_plan(s, {.columns = true}, 14));
  }
}

TEST_P(Attend, Complement) {
  for (auto dtype : {at::kFloat, at::kBFloat16})
    for (int block : {32, 64, 128})
      for (int64_t n : {31, 256, 333}) {
        SCOPED_TRACE(str("block ", block, " n ", n));
        const Shape s{4, 2, n, 32, dtype};
        AttentionPlan plan = random_plan(s, {.q_tile = 64, .k_tile = 32, .density = 0.2}, 15);
        plan.complement = random_complement(s, block, 16);
        expect_right(random_qkv(s, 17), plan);
      }
}

TEST_P(Attend, TileMeans) {
  for (auto [q_tile, k_tile] : {std::pair{64, 64}, {32, 128}, {128, 16}, {16, 16}})
    for (int64_t n : {1, 64, 333, 500}) {
      SCOPED_TRACE(str(q_tile, "x", k_tile, " n ", n));
      const Shape s{6, 2, n, 32};
      AttentionPlan plan = random_plan(s, {.q_tile = q_tile, .k_tile = k_tile, .columns = true}, 18);
      plan.want_tile_mean = {1, 0, 1, 1, 0, 1};
      const Qkv a = random_qkv(s, 19);
      const auto want = brute_force(a, plan).tile_mean.index_select(0, at::tensor({0, 2, 3, 5}));
      const auto got = backend->attend(a, plan).tile_mean;
      ASSERT_EQ(got.sizes(), want.sizes());
      EXPECT_LE((got - want).abs().max().item<double>(), 2e-6);
      EXPECT_LE((got.sum(-1) - 1).abs().max().item<double>(), 1e-5) << "a row's mass is 1";
      for (int64_t r = 0; r < got.size(1); ++r)
        for (int64_t c = 0; c < got.size(2); ++c)
          if (c * k_tile > std::min(n, (r + 1) * q_tile) - 1) {
            EXPECT_EQ(got.select(1, r).select(1, c).abs().max().item<float>(), 0.f) << "above the diagonal";
          }
      expect_right(a, plan);  // asking for means does not change the output
    }
}

TEST_P(Attend, StateOfOnePass) {
  const Shape s{4, 2, 200, 32};
  const Qkv a = random_qkv(s, 20);
  const AttentionPlan plan = random_plan(s, {.columns = true}, 21);
  const Expected want = brute_force(a, plan);
  const PartialSoftmax got = backend->attend_partial(a, plan);
  EXPECT_LE((got.row_max - want.row_max).abs().max().item<double>(), 1e-5);
  EXPECT_LE(((got.row_sum - want.row_sum) / want.row_sum).abs().max().item<double>(), 1e-5);
  EXPECT_LE(nmse(got.acc / got.row_sum.unsqueeze(-1), want.out), nmse_bound(at::kFloat));
  ASSERT_TRUE(got.covered);
  EXPECT_EQ(density(*got.covered, s.n), density(plan, s.n));
}

/// Tiles of `plan` split at random into the diagonal pass and a second pass that resumes it.
TEST_P(Attend, ChainedPassesEqualOne) {
  for (auto dtype : {at::kFloat, at::kBFloat16})
    for (int64_t n : {65, 333}) {
      const Shape s{4, 2, n, 64, dtype};
      const Qkv a = random_qkv(s, 22);
      AttentionPlan first = AttentionPlan::uniform(s.q_heads, {Route::window, 0});
      first.windows = {{0, 64, 0}};
      // Tiles two or more rows below the diagonal, which the window does not reach.
      const int64_t rows = (n + 31) / 32;
      auto mask = at::zeros({1, rows, rows}, at::kBool);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c + 3 <= r; ++c) mask[0][r][c] = (r + c) % 2 == 0;
      AttentionPlan second = AttentionPlan::uniform(s.q_heads, {Route::tiles, 0});
      second.tiles = tiles_from_mask(mask, 32, 32);
      second.resume = backend->attend_partial(a, first);
      const Expected want = brute_force(a, second);  // token_mask unites both passes
      const AttendResult got = backend->attend(a, second, {.lse = true});
      EXPECT_LE(nmse(got.out, want.out), nmse_bound(dtype));
      EXPECT_LE((got.lse - want.lse).abs().max().item<double>(), lse_bound(a));
      const PartialSoftmax state = backend->attend_partial(a, second);
      EXPECT_LE((state.row_max - want.row_max).abs().max().item<double>(), dtype == at::kFloat ? 1e-5 : 1e-4);
    }
}

TEST_P(Attend, ResumesRowsThatHaveNoKeysOfTheirOwn) {
  const Shape s{2, 1, 100, 16};
  const Qkv a = random_qkv(s, 23);
  AttentionPlan empty = AttentionPlan::uniform(2, {Route::tiles, 0});
  empty.tiles = tiles_from_mask(at::zeros({1, 4, 4}, at::kBool), 32, 32);
  const AttentionPlan dense = AttentionPlan::uniform(2, {Route::dense, 0});
  empty.resume = backend->attend_partial(a, dense);
  EXPECT_LE(nmse(backend->attend(a, empty).out, brute_force(a, dense).out), nmse_bound(at::kFloat));
}

TEST_P(Attend, LargeLogitsDoNotOverflow) {
  const Shape s{2, 1, 130, 32};
  Qkv a = random_qkv(s, 24);
  a.scale = 40;  // logits of several hundred, where exp alone overflows
  const AttentionPlan plan = AttentionPlan::uniform(2, {Route::dense, 0});
  const auto got = backend->attend(a, plan, {.lse = true});
  const Expected want = brute_force(a, plan);
  EXPECT_LE(nmse(got.out, want.out), 1e-7);  // an ulp of a logit of 1000 is 6e-5
  EXPECT_LE((got.lse - want.lse).abs().max().item<double>(), 2e-3);
}

TEST_P(Attend, NanInAKeyReachesTheQueriesThatSeeIt) {
  const Shape s{1, 1, 100, 16};
  Qkv a = random_qkv(s, 25);
  a.k[0][50].fill_(std::numeric_limits<float>::quiet_NaN());
  const auto out = backend->attend(a, AttentionPlan::uniform(1, {Route::dense, 0})).out;
  EXPECT_TRUE(at::isnan(out.narrow(1, 50, 50)).all().item<bool>()) << "a NaN must not be hidden";
  EXPECT_FALSE(at::isnan(out.narrow(1, 0, 48)).any().item<bool>()) << "nor reach earlier queries";
}

}  // namespace
}  // namespace prefill::testing
