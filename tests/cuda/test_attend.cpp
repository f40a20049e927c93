// The cuda backend against cpu-ref, on random plans. Skips visibly where there is no GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "core/backend.h"

namespace prefill {
namespace {

struct Shape {
  const char* name;
  int q_heads, kv_heads, dim;
  int64_t n;
  at::ScalarType dtype;
  int q_tile, k_tile;
  bool shared_routes = false, columns = false;
  int col_rows = 1, pooled = 0, k_step = 0;
};

void PrintTo(const Shape& s, std::ostream* out) { *out << s.name; }

double nmse(const at::Tensor& got, const at::Tensor& want) {
  const auto a = got.cpu().to(at::kDouble), b = want.to(at::kDouble);
  return ((a - b).square().sum() / b.square().sum().clamp_min(1e-30)).item<double>();
}
/// Squared rounding of the output dtype and of the probabilities that are multiplied in it.
double bound(at::ScalarType dtype) { return dtype == at::kHalf ? 4e-6 : 3e-5; }

Qkv random_qkv(const Shape& s, uint64_t seed) {
  at::manual_seed(seed);
  const auto options = at::TensorOptions().dtype(at::kFloat);
  Qkv a;
  // as a model hands them over: views of [tokens, heads, dim]
  a.q = at::randn({s.n, s.q_heads, s.dim}, options).mul_(1.3).to(s.dtype).transpose(0, 1);
  a.k = at::randn({s.n, s.kv_heads, s.dim}, options).mul_(1.3).to(s.dtype).transpose(0, 1);
  a.v = at::randn({s.n, s.kv_heads, s.dim}, options).to(s.dtype).transpose(0, 1);
  a.scale = 1 / std::sqrt(double(s.dim));
  return a;
}

at::Tensor csr_from_rows(const std::vector<std::vector<int32_t>>& rows, int64_t patterns, at::Tensor& ptr) {
  const int64_t per = int64_t(rows.size()) / patterns;
  ptr = at::zeros({patterns, per + 1}, at::kInt);
  int64_t capacity = 5;
  for (int64_t p = 0; p < patterns; ++p)
    for (int64_t r = 0; r < per; ++r) {
      ptr[p][r + 1] = ptr[p][r] + int64_t(rows[size_t(p * per + r)].size());
      capacity = std::max(capacity, ptr[p][r + 1].item<int64_t>() + 5);
    }
  auto idx = at::full({patterns, capacity}, -1, at::kInt);
  for (int64_t p = 0; p < patterns; ++p) {
    int64_t at = 0;
    for (int64_t r = 0; r < per; ++r)
      for (int32_t id : rows[size_t(p * per + r)]) idx[p][at++] = id;
  }
  return idx;
}

/// Tiles at random with the diagonal, some rows with the diagonal only; every fourth head dense, every fourth a window.
AttentionPlan random_plan(const Shape& s, const Qkv& a, uint32_t seed) {
  std::mt19937 rng(seed);
  AttentionPlan plan;
  plan.windows = {{64, 200, 0}, {4, 100, 70}};
  const int group = s.q_heads / s.kv_heads, patterns = s.shared_routes ? s.kv_heads : s.q_heads;
  for (int h = 0; h < s.q_heads; ++h) {
    if (s.shared_routes) plan.heads.push_back({Route::tiles, h / group});
    else if (h % 4 == 1) plan.heads.push_back({Route::dense, 0});
    else if (h % 4 == 2) plan.heads.push_back({Route::window, int32_t(rng() % 2)});
    else plan.heads.push_back({Route::tiles, h});
  }
  TileSet& t = plan.tiles;
  t.q_tile = s.q_tile, t.k_tile = s.k_tile, t.k_step = s.k_step, t.col_rows = s.col_rows;
  const int64_t rows = (s.n + s.q_tile - 1) / s.q_tile;
  std::vector<std::vector<int32_t>> lists, columns;
  for (int p = 0; p < patterns; ++p)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = r * s.q_tile / s.k_tile, last = (std::min(s.n, (r + 1) * s.q_tile) - 1) / s.k_tile;
      std::vector<int32_t> row;
      const unsigned percent = rng() % 5 == 0 ? 0 : rng() % 60;
      if (s.k_step) {
        const int64_t query = r * s.q_tile, end = std::min(s.n, query + s.q_tile);
        for (int64_t key = 0; key + s.k_tile <= query;) {
          const bool take = rng() % 100 < percent;
          if (take) row.push_back(int32_t(key / s.k_step));
          key += take ? s.k_tile : s.k_step * int64_t(1 + rng() % 40);
        }
        for (int64_t key = query; key < end; key += s.k_tile) row.push_back(int32_t(key / s.k_step));
      }
      for (int64_t k = 0; k < first && !s.k_step; ++k)
        if (rng() % 100 < percent) row.push_back(int32_t(k));
      for (int64_t k = first; k <= last && !s.k_step; ++k) row.push_back(int32_t(k));
      lists.push_back(row);
    }
  t.tile_idx = csr_from_rows(lists, patterns, t.tile_ptr);
  if (s.columns) {
    const int64_t groups = (rows + s.col_rows - 1) / s.col_rows;
    for (int p = 0; p < patterns; ++p)
      for (int64_t g = 0; g < groups; ++g) {
        std::vector<int32_t> list;
        for (int64_t j = 0; j < g * s.col_rows * s.q_tile; ++j) {
          bool inside = false;
          for (int64_t r = g * s.col_rows; r < std::min(rows, (g + 1) * s.col_rows); ++r) {
            const auto& row = lists[size_t(p * rows + r)];
            inside = inside || std::any_of(row.begin(), row.end(), [&](int32_t id) {
                       return j >= id * t.step() && j < id * t.step() + s.k_tile;
                     });
          }
          if (!inside && rng() % 100 < 12) list.push_back(int32_t(j));
        }
        columns.push_back(list);
      }
    t.col_idx = csr_from_rows(columns, patterns, t.col_ptr);
  }
  if (s.pooled) {
    const int64_t blocks = (s.n + s.pooled - 1) / s.pooled;
    plan.complement = PooledComplement{s.pooled, at::randn({s.kv_heads, blocks, s.dim}).mul_(0.7).to(s.dtype),
                                       at::randn({s.kv_heads, blocks, s.dim}).to(s.dtype)};
  }
  check(plan, a.q_heads(), a.seq_len());
  return plan;
}

Qkv on_gpu(const Qkv& a) {
  // .to() keeps the strides, so the kernel sees what a model hands over
  return {a.q.to(at::kCUDA), a.k.to(at::kCUDA), a.v.to(at::kCUDA), a.scale};
}
AttentionPlan on_gpu(AttentionPlan p) {
  for (at::Tensor* t : {&p.tiles.tile_ptr, &p.tiles.tile_idx, &p.tiles.col_ptr, &p.tiles.col_idx})
    if (t->defined()) *t = t->to(at::kCUDA);
  if (p.complement) p.complement->k_mean = p.complement->k_mean.to(at::kCUDA), p.complement->v_mean = p.complement->v_mean.to(at::kCUDA);
  if (p.resume)
    for (at::Tensor* t : {&p.resume->row_max, &p.resume->row_sum, &p.resume->acc}) *t = t->to(at::kCUDA);
  return p;
}

/// Second parameter: the kernels to run, "sm90" (what the chip has) or "sm80" (mma.sync, on any chip).
class CudaAttend : public testing::TestWithParam<std::tuple<Shape, const char*>> {
 protected:
  void SetUp() override {
    const BackendInfo& info = backends().at("cuda");
    if (const Support s = info.available(); !s) GTEST_SKIP() << s.why;
    setenv("PREFILL_CUDA_KERNELS", std::get<1>(GetParam()), 1);
    cuda = info.make();
    reference = backends().at("cpu-ref").make();
    shape = std::get<0>(GetParam());
    a = random_qkv(shape, 7);
    plan = random_plan(shape, a, 13);
  }
  void TearDown() override { unsetenv("PREFILL_CUDA_KERNELS"); }
  std::unique_ptr<KernelBackend> cuda, reference;
  Shape shape;
  Qkv a;
  AttentionPlan plan;
};

TEST_P(CudaAttend, AgreesWithTheReference) {
  const Qkv g = on_gpu(a);
  const AttentionPlan gp = on_gpu(plan);
  ASSERT_TRUE(cuda->supports(g, gp)) << cuda->supports(g, gp).why;
  const AttendResult want = reference->attend(a, plan, {.lse = true}), got = cuda->attend(g, gp, {.lse = true});
  EXPECT_LT(nmse(got.out, want.out), bound(shape.dtype));
  EXPECT_LT((got.lse.cpu() - want.lse).abs().max().item<double>(), 2e-4);
  const AttendResult again = cuda->attend(g, gp, {.lse = true});
  EXPECT_TRUE(got.out.equal(again.out)) << "the same plan twice must give the same bits";
  EXPECT_TRUE(got.lse.equal(again.lse));
}

TEST_P(CudaAttend, HandsOverAndResumes) {
  // the reference hands its state to the GPU and the other way round; keys of the two passes are disjoint: the
  // second pass holds single columns only
  AttentionPlan first = plan;
  first.tiles.col_ptr = at::Tensor();
  first.tiles.col_idx = at::Tensor();
  const Qkv g = on_gpu(a);
  const PartialSoftmax want = reference->attend_partial(a, first), got = cuda->attend_partial(g, on_gpu(first));
  const auto weight = at::exp(got.row_max.cpu() - want.row_max);
  EXPECT_LT(nmse(got.row_sum.cpu() * weight, want.row_sum), 1e-6);
  EXPECT_LT(nmse(got.acc.cpu() * weight.unsqueeze(-1), want.acc), bound(shape.dtype));
  if (!shape.columns) return;
  AttentionPlan second = plan;
  for (Route& r : second.heads) r = {Route::tiles, r.kind == Route::tiles ? r.index : 0};
  second.complement.reset();
  second.tiles.tile_ptr = at::zeros_like(plan.tiles.tile_ptr);
  second.resume = want;
  const AttendResult whole = reference->attend(a, second), resumed = cuda->attend(g, on_gpu(second));
  EXPECT_LT(nmse(resumed.out, whole.out), bound(shape.dtype));
}

TEST_P(CudaAttend, TileMeans) {
  if (shape.k_step) {
    plan.want_tile_mean.assign(size_t(shape.q_heads), 1);
    EXPECT_THROW(cuda->attend(on_gpu(a), on_gpu(plan)), Unsupported);
    return;
  }
  if (shape.columns || shape.pooled) GTEST_SKIP() << "rows of the means sum to 1 with tiles alone";
  plan.want_tile_mean.assign(size_t(shape.q_heads), 0);
  for (int h = 0; h < shape.q_heads; h += 2) plan.want_tile_mean[size_t(h)] = 1;
  const AttendResult want = reference->attend(a, plan), got = cuda->attend(on_gpu(a), on_gpu(plan));
  ASSERT_EQ(got.tile_mean.sizes(), want.tile_mean.sizes());
  EXPECT_LT((got.tile_mean.cpu() - want.tile_mean).abs().max().item<double>(), 2e-5);
  EXPECT_LT((got.tile_mean.cpu().sum(-1) - 1).abs().max().item<double>(), 1e-3);
}

const Shape shapes[] = {
    {"d128_gqa4", 8, 2, 128, 1537, at::kBFloat16, 128, 128},
    {"d128_gqa1_tiles128x64", 4, 4, 128, 1000, at::kBFloat16, 128, 64},
    {"d64_gqa3_packed", 9, 3, 64, 1333, at::kBFloat16, 64, 64, true},
    {"d64_gqa8_f16_small_tiles", 8, 1, 64, 777, at::kHalf, 32, 32, true},
    {"d128_own_rows64", 6, 2, 128, 1111, at::kHalf, 64, 64},
    {"d128_columns", 8, 2, 128, 1409, at::kBFloat16, 128, 128, false, true, 4},
    {"d64_columns_own_rows", 4, 2, 64, 900, at::kHalf, 64, 64, false, true},
    {"d128_pooled", 8, 2, 128, 1700, at::kBFloat16, 128, 64, true, false, 1, 128},
    {"d64_pooled_columns", 4, 2, 64, 1300, at::kBFloat16, 64, 64, false, true, 2, 64},
    {"d128_free_tiles", 8, 2, 128, 1409, at::kBFloat16, 128, 64, false, true, 1, 0, 1},
    {"d64_free_tiles_rows64", 6, 2, 64, 1333, at::kHalf, 64, 64, false, true, 1, 0, 1},
    {"d128_free_tiles_packed", 8, 2, 128, 1111, at::kBFloat16, 64, 128, true, false, 1, 0, 8},
    {"one_token", 3, 1, 128, 1, at::kBFloat16, 128, 128},
    {"sixty_five_tokens", 3, 1, 64, 65, at::kHalf, 64, 64},
};
INSTANTIATE_TEST_SUITE_P(Plans, CudaAttend, testing::Combine(testing::ValuesIn(shapes), testing::Values("sm90", "sm80")),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) + "_" + std::get<1>(test.param);
                         });

// Columns shared by many rows are copied side by side, in as many launches as memory asks for, or gathered where there is
// none.
TEST(CudaBackend, SharedColumnsInSeveralLaunches) {
  const BackendInfo& info = backends().at("cuda");
  if (const Support s = info.available(); !s) GTEST_SKIP() << s.why;
  const auto cuda = info.make(), reference = backends().at("cpu-ref").make();
  for (const Shape& s : {Shape{"", 8, 2, 128, 2500, at::kBFloat16, 128, 128, false, true, 4},
                         {"", 9, 3, 64, 3001, at::kHalf, 64, 64, false, true, 16},
                         {"", 4, 1, 128, 2049, at::kBFloat16, 32, 64, true, true, 16}}) {
    const Qkv a = random_qkv(s, 5), g = on_gpu(a);
    const AttentionPlan plan = random_plan(s, a, 17), there = on_gpu(plan);
    const at::Tensor want = reference->attend(a, plan).out;
    for (const char* mib : {"0", "5", "12", "1000"}) {
      SCOPED_TRACE(str(s.n, " tokens, ", mib, " MiB"));
      setenv("PREFILL_CUDA_COLUMN_MIB", mib, 1);
      const at::Tensor got = cuda->attend(g, there).out, again = cuda->attend(g, there).out;
      unsetenv("PREFILL_CUDA_COLUMN_MIB");
      EXPECT_LT(nmse(got, want), bound(s.dtype));
      EXPECT_TRUE(got.equal(again));
    }
  }
}

TEST(CudaBackend, SaysWhatItDoesNotCompute) {
  const BackendInfo& info = backends().at("cuda");
  if (const Support s = info.available(); !s) GTEST_SKIP() << s.why;
  const auto cuda = info.make();
  const auto options = at::TensorOptions().device(at::kCUDA);
  const auto x = at::randn({2, 100, 96}, options.dtype(at::kBFloat16)), f = at::randn({2, 100, 64}, options);
  const AttentionPlan dense = AttentionPlan::uniform(2, {Route::dense, 0});
  EXPECT_NE(cuda->supports({x, x, x, 0.1}, dense).why.find("head_dim"), std::string::npos);
  EXPECT_NE(cuda->supports({f, f, f, 0.1}, dense).why.find("dtype"), std::string::npos);
  EXPECT_THROW(cuda->attend({f, f, f, 0.1}, dense), Unsupported);
}

TEST(CudaBackend, EstimatorsAreThoseOfTheBaseClass) {
  const BackendInfo& info = backends().at("cuda");
  if (const Support s = info.available(); !s) GTEST_SKIP() << s.why;
  const auto cuda = info.make(), reference = backends().at("cpu-ref").make();
  for (const Shape& s : {Shape{"", 6, 2, 128, 1300, at::kBFloat16, 64, 64}, Shape{"", 3, 3, 64, 70, at::kHalf, 64, 64}}) {
    const Qkv a = random_qkv(s, 3), g = on_gpu(a);
    for (int tile : {1, 64, 100})
      EXPECT_LT((cuda->pool_mean(g.k, tile).cpu() - reference->pool_mean(a.k, tile)).abs().max().item<double>(), 1e-5);
    for (int64_t tail : {1, 64, 100, 2000}) {
      const auto got = cuda->tail_sums(g, tail), want = reference->tail_sums(a, tail);
      EXPECT_LT((got.first.cpu() - want.first).abs().max().item<double>(), 1e-4 * double(tail)) << "columns, tail " << tail;
      EXPECT_LT((got.second.cpu() - want.second).abs().max().item<double>(), 1e-4 * double(tail)) << "distances, tail " << tail;
      EXPECT_NEAR(got.second.sum().item<double>(), double(s.q_heads) * double(std::min(tail, s.n)), 1e-2 * double(tail));
    }
  }
}

TEST(CudaBackend, ClockAddsUpStages) {
  const BackendInfo& info = backends().at("cuda");
  if (const Support s = info.available(); !s) GTEST_SKIP() << s.why;
  const auto clock = info.make()->make_clock();
  const auto x = at::randn({2048, 2048}, at::TensorOptions().device(at::kCUDA));
  at::Tensor y;
  for (int i = 0; i < 3; ++i) {
    StageScope scope(*clock, Stage::attend, i);
    y = at::matmul(x, x);
  }
  const auto once = clock->seconds(), twice = clock->seconds();
  EXPECT_GT(once[size_t(Stage::attend)], 0);
  EXPECT_EQ(once, twice);
  EXPECT_EQ(once[size_t(Stage::select)], 0);
  clock->reset();
  EXPECT_EQ(clock->seconds()[size_t(Stage::attend)], 0);
}

}  // namespace
}  // namespace prefill
