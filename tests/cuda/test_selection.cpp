// The selection kernels against the same steps in ATen on the CPU. Skips visibly where there is no GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/device_ops.h"
#include "core/engine.h"
#include "kernels/api.h"
#include "methods/parts/scores.h"
#include "methods/parts/selectors.h"
#include "methods/parts/vertical_slash.h"

namespace prefill {
namespace {

#define NEED_GPU()                                                                    \
  if (const Support s = backends().at("cuda").available(); !s) GTEST_SKIP() << s.why; \
  ASSERT_TRUE(cuda_ops()                                                              \
                  .true_columns&& cuda_ops()                                          \
                  .tile_energy&& cuda_ops()                                           \
                  .stripe_hits&& cuda_ops()                                           \
                  .select_tiles&& cuda_ops()                                          \
                  .count_for_mass&& cuda_ops()                                        \
                  .softmax_block_sums&& cuda_ops()                                    \
                  .strided_mass)

void expect_same_lists(const at::Tensor& ptr, const at::Tensor& idx, const at::Tensor& want_ptr, const at::Tensor& want_idx) {
  const at::Tensor p = ptr.cpu(), i = idx.cpu();
  ASSERT_TRUE(p.equal(want_ptr));
  for (int64_t k = 0; k < p.size(0); ++k) {
    const int64_t count = p[k][p.size(1) - 1].item<int64_t>();
    EXPECT_TRUE(i[k].narrow(0, 0, count).equal(want_idx[k].narrow(0, 0, count))) << "pattern " << k;
  }
}

TEST(CudaSelection, ListsOfMasks) {
  NEED_GPU();
  at::manual_seed(1);
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {7, 16}, {5, 33}, {3, 4096}, {2, 9001}, {64, 1024}})
    for (double share : {0.0, 0.03, 0.5, 1.0}) {
      SCOPED_TRACE(str(rows, " x ", cols, ", ", share));
      const at::Tensor mask = at::rand({3, rows, cols}) < share;
      const TileSet want = tiles_from_mask(mask, 64, 64), got = tiles_from_mask(mask.cuda(), 64, 64);
      expect_same_lists(got.tile_ptr, got.tile_idx, want.tile_ptr, want.tile_idx);
    }
}

TEST(CudaSelection, VerticalAndSlashLines) {
  NEED_GPU();
  at::manual_seed(2);
  ASSERT_TRUE(cuda_ops().cover_slashes);
  for (int64_t n : {1, 64, 65, 1000, 4321, 70001})
    for (const SlashTiles tiles : {SlashTiles{64, 64}, {128, 64}, {128, 16}})
      for (double share : {0.0, 0.001, 0.01, 0.3}) {
        const at::Tensor columns = at::rand({5, n}) < 0.02, distances = at::rand({5, n}) < share;
        const int64_t most = columns.sum(1).max().item<int64_t>() + 3;
        const TileSet want = cover_vertical_slash(columns, distances, most, tiles);
        const TileSet got = cover_vertical_slash(columns.cuda(), distances.cuda(), most, tiles);
        SCOPED_TRACE(str(n, " tokens, tiles ", tiles.q_tile, "x", tiles.k_tile, ", ", share));
        expect_same_lists(got.tile_ptr, got.tile_idx, want.tile_ptr, want.tile_idx);
        expect_same_lists(got.col_ptr, got.col_idx, want.col_ptr, want.col_idx);
      }
}

TEST(CudaSelection, TileEnergy) {
  NEED_GPU();
  at::manual_seed(3);
  struct Case {
    int q_heads, kv_heads, dim;
    int64_t n;
    int q_tile, k_tile;
    at::ScalarType dtype;
  };
  for (const Case& c : {Case{8, 2, 128, 3000, 128, 128, at::kBFloat16}, {9, 3, 64, 9217, 32, 128, at::kBFloat16},
                        {4, 4, 128, 517, 64, 64, at::kHalf}, {8, 1, 64, 1500, 16, 64, at::kHalf}, {2, 1, 128, 20, 512, 16, at::kBFloat16}})
    for (int bits = 0; bits < 8; ++bits) {
      const EnergyOptions how{.sees = bits & 1 ? Sees::first_token : Sees::last_token, .per_kv_head = bool(bits & 2),
                              .padded_rows = bool(bits & 4)};
      SCOPED_TRACE(str(c.q_heads, "/", c.kv_heads, "/", c.dim, " n=", c.n, " tiles ", c.q_tile, "x", c.k_tile, " bits ", bits));
      const at::Tensor q = at::randn({c.n, c.q_heads, c.dim}).mul_(1.5).to(c.dtype).transpose(0, 1);
      const at::Tensor means = block_means(at::randn({c.kv_heads, c.n, c.dim}) * 6, c.k_tile).to(c.dtype);
      const TileGrid grid{c.n, c.q_tile, c.k_tile};
      const double scale = 1 / std::sqrt(double(c.dim));
      const at::Tensor want = tile_energy(q, means, scale, grid, how);
      ASSERT_TRUE(cuda_ops().tile_energy(q.cuda(), means.cuda(), {scale, c.q_tile, c.k_tile, how.sees == Sees::first_token,
                                                                  how.per_kv_head, how.padded_rows}).defined());
      const at::Tensor got = tile_energy(q.cuda(), means.cuda(), scale, grid, how).cpu();
      ASSERT_EQ(got.sizes(), want.sizes());
      EXPECT_TRUE(at::allclose(got, want, 1e-3, 1e-5)) << (got - want).abs().max().item<float>();
      EXPECT_TRUE(got.equal(tile_energy(q.cuda(), means.cuda(), scale, grid, how).cpu())) << "two runs differ";
    }
}

TEST(CudaSelection, BestTilesByMassAndByCount) {
  NEED_GPU();
  at::manual_seed(6);
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {40, 40}, {300, 300}, {5, 3000}}) {
    const TileGrid grid{cols * 64, int(cols * 64 / rows), 64};
    const at::Tensor causal = causal_tiles(grid, at::kCPU).narrow(0, 0, rows), forced = forced_tiles(grid, {1, 2, 1}, at::kCPU).narrow(0, 0, rows);
    at::Tensor mass = masked_softmax(at::randn({4, rows, cols}) * 2, causal);
    mass[1].copy_((mass[1] * 50).round() / 50);  // ties and zeros
    mass[2].zero_();
    const at::Tensor some = causal & (at::rand({4, rows, cols}) < 0.7), signs = at::randn({4, rows, cols});
    SCOPED_TRACE(str(rows, " x ", cols));
    for (double p : {0.0, 0.3, 0.9, 0.999, 1.0})
      for (const at::Tensor& allowed : {causal, some})
        for (const at::Tensor& first : {at::Tensor(), forced}) {
          const at::Tensor want = select_top_p(mass, {p, p / 2, p, p}, allowed, first);
          const at::Tensor got = select_top_p(mass.cuda(), {p, p / 2, p, p}, allowed.cuda(), first.defined() ? first.cuda() : first).cpu();
          EXPECT_LE((want != got).sum().item<int64_t>(), 1 + want.numel() / 100000) << "p = " << p;
        }
    for (int64_t k : {1, 3, 17, 5000})
      for (const at::Tensor& first : {at::Tensor(), forced})
        EXPECT_TRUE(select_top_k(signs, k, some, first).equal(select_top_k(signs.cuda(), k, some.cuda(), first.defined() ? first.cuda() : first).cpu())) << "k = " << k;
    const at::Tensor counts = at::randint(0, 9, {4, rows, 1}, at::kLong);
    EXPECT_TRUE(select_top_count(signs, counts, causal, forced).equal(select_top_count(signs.cuda(), counts.cuda(), causal.cuda(), forced.cuda()).cpu()));
  }
}

TEST(CudaSelection, CausalBlockSums) {
  NEED_GPU();
  at::manual_seed(9);
  struct Case {
    int64_t heads, rows, cols, block, first, real;
  };
  for (const Case& c : {Case{3, 8, 8, 8, 0, 8}, {2, 64, 1024, 8, 960, 1021}, {1, 48, 4096, 16, 4048, 4096}, {2, 32, 512, 4, 0, 29},
                        {1, 128, 640, 128, 512, 600}, {2, 16, 8192, 8, 4096, 9000}}) {
    SCOPED_TRACE(str(c.heads, " x ", c.rows, " x ", c.cols, " block ", c.block, " from ", c.first));
    const at::Tensor scores = at::randn({c.heads, c.rows, c.cols}) * 20;
    at::Tensor want = at::full({c.heads, c.rows / c.block + 1, c.cols / c.block + 2}, -1.0), got = want.cuda();
    auto part = [&](at::Tensor& x) { return x.narrow(1, 1, c.rows / c.block).narrow(2, 1, c.cols / c.block); };
    const at::Tensor on_device = scores.cuda();
    ASSERT_TRUE(cuda_ops().softmax_block_sums(on_device, 0.125, c.block, c.first, c.real, part(got)));
    causal_block_sums(scores.clone(), 0.125, c.block, c.first, c.real, part(want));
    EXPECT_LT((got.cpu() - want).abs().max().item<double>(), 2e-5);  // what lies around stays -1
    const int64_t counted = std::min(c.rows, std::max<int64_t>(0, c.real - c.first));
    EXPECT_NEAR(part(want)[0].sum().item<double>(), double(counted), 1e-3);
  }
}

/// Odd lengths, groups and blocks that are not whole, one and several tiles of scores, keys shared by 1, 3, 4
/// and 8 heads.
TEST(CudaSelection, AntidiagonalMass) {
  NEED_GPU();
  at::manual_seed(11);
  struct Case {
    int64_t n, q_heads, kv_heads, dim, stride, block;
    const char* mode = "antidiagonal";
    at::ScalarType dtype = at::kBFloat16;
  };
  const bool hopper = kernels::attend_cuda_isa() == std::string("sm90a");
  for (const Case& c : {Case{17, 2, 2, 64, 16, 128},
                        {128, 1, 1, 128, 8, 128},
                        {1000, 3, 1, 64, 16, 64},
                        {2049, 4, 1, 128, 8, 64},
                        {4097, 8, 1, 64, 4, 128},
                        {4100, 2, 2, 128, 32, 64},
                        {9001, 6, 2, 128, 16, 128, "diagonal"},
                        {9001, 8, 2, 64, 8, 128, "random"},
                        {8191, 2, 1, 64, 4, 64, "antidiagonal", at::kHalf},
                        {12345, 8, 1, 128, 32, 128},
                        {9999, 4, 4, 64, 4, 128},
                        {30011, 2, 1, 64, 16, 128},
                        {3000, 2, 1, 128, 2, 128}}) {
    SCOPED_TRACE(str(c.q_heads, "/", c.kv_heads, "/", c.dim, " n=", c.n, " stride ", c.stride, " block ",
                     c.block, " ", c.mode));
    const double scale = 1 / std::sqrt(double(c.dim)), sharp = 3 * std::sqrt(double(c.stride));
    const at::Tensor q =
        at::randn({c.n, c.q_heads, c.dim}).mul_(sharp).to(c.dtype).transpose(0, 1);  // as a model lays it out
    const at::Tensor k = at::randn({c.n, c.kv_heads, c.dim}).to(c.dtype).transpose(0, 1);
    AntidiagonalOptions how{.stride = int(c.stride), .mode = c.mode};
    std::vector<int64_t> any_order(size_t(c.stride), 0);
    EXPECT_EQ(
        cuda_ops().strided_mass(q.cuda(), k.cuda(), {scale, c.stride, c.block, any_order, false}).defined(),
        hopper);
    const at::Tensor want = antidiagonal_mass(q, k, scale, c.block, how),
                     got = antidiagonal_mass(q.cuda(), k.cuda(), scale, c.block, how).cpu();
    ASSERT_EQ(got.sizes(), want.sizes());
    EXPECT_TRUE(at::allclose(got, want, 1e-3, 1e-5)) << (got - want).abs().max().item<float>();
    EXPECT_TRUE(got.equal(antidiagonal_mass(q.cuda(), k.cuda(), scale, c.block, how).cpu()))
        << "two runs differ";
    const at::Tensor packed =
        antidiagonal_mass(q.cuda().contiguous(), k.cuda().contiguous(), scale, c.block, how).cpu();
    EXPECT_TRUE(got.equal(packed)) << "another layout gives other bits";
    how.keep = c.dtype;  // what a release rounds
    const at::Tensor kept = antidiagonal_mass(q, k, scale, c.block, how),
                     ours = antidiagonal_mass(q.cuda(), k.cuda(), scale, c.block, how).cpu();
    EXPECT_LE((ours - kept).norm().item<double>(), 0.5 * (want - kept).norm().item<double>())
        << "not rounded as the release does";
  }
}

TEST(CudaSelection, CountsForMass) {
  NEED_GPU();
  at::manual_seed(5);
  for (int64_t n : {1, 31, 1024, 5000, 40000})
    for (double mass : {0.01, 0.3, 0.9, 0.999}) {
      const at::Tensor x = at::cat({(at::randn({6, n}) * 3).softmax(-1), at::full({1, n}, 1.0 / double(n)),
                                    at::full({1, n}, 0.1 / double(n))});  // the last never reaches 0.3
      const at::Tensor got = cuda_ops().count_for_mass(x.cuda(), mass).cpu();
      for (int64_t h = 0; h < x.size(0); ++h) {
        const at::Tensor sorted = std::get<0>(x[h].to(at::kDouble).sort(-1, true));
        const int64_t k = got[h].item<int64_t>();
        ASSERT_TRUE(k >= 1 && k <= n);
        const double before = sorted.narrow(0, 0, k - 1).sum().item<double>(), with = before + sorted[k - 1].item<double>();
        EXPECT_LT(before, mass + 1e-5) << "n=" << n << " mass=" << mass << " row " << h << ": " << k << " is too many";
        if (k < n) {
          EXPECT_GT(with, mass - 1e-5) << "n=" << n << " mass=" << mass << " row " << h << ": " << k << " is too few";
        }
      }
    }
}

/// The whole method, since the kernel's output is a step of it: the columns chosen on both sides.
TEST(CudaSelection, AnchorColumns) {
  NEED_GPU();
  const auto cuda = backends().at("cuda").make(), cpu = backends().at("cpu-ref").make();
  const auto clock = make_cpu_clock();
  for (const auto& [heads, kv, dim, step] : {std::array<int, 4>{6, 2, 64, 4}, {8, 1, 128, 3}, {3, 3, 128, 16}}) {
    at::manual_seed(4);
    const int64_t n = 3333;
    Qkv a{at::randn({n, heads, dim}).to(at::kBFloat16).transpose(0, 1), at::randn({n, kv, dim}).to(at::kBFloat16).transpose(0, 1),
          at::randn({n, kv, dim}).to(at::kBFloat16).transpose(0, 1), 1 / std::sqrt(double(dim))};
    const Qkv g{a.q.cuda(), a.k.cuda(), a.v.cuda(), a.scale};
    for (const char* tail : {"dense", "sparse"}) {
      const auto method = make_method("anchor", {{"block", 16}, {"step", step}, {"theta", 3.5}, {"tail", tail}, {"local_groups", 2}},
                                      {{"test", 1, heads, kv, dim, 0.}});
      const auto state = method->begin_prompt(n);
      const AttentionPlan want = method->plan({a, 0, n, *cpu, *clock}, *state), got = method->plan({g, 0, n, *cuda, *clock}, *state);
      const double theirs = want.tiles.col_ptr.select(1, -1).sum().item<double>(), ours = got.tiles.col_ptr.select(1, -1).sum().item<double>();
      EXPECT_GT(theirs, 1000) << "too few columns to compare";
      EXPECT_NEAR(ours, theirs, 0.003 * theirs);
      AttentionPlan x = got, y = want;
      x.resume.reset(), y.resume.reset();
      for (at::Tensor* t : {&x.tiles.tile_ptr, &x.tiles.tile_idx, &x.tiles.col_ptr, &x.tiles.col_idx}) *t = t->cpu();
      const at::Tensor ours_mask = token_mask(x, n), theirs_mask = token_mask(y, n);
      EXPECT_LT((ours_mask != theirs_mask).sum().item<double>(), 0.003 * theirs_mask.sum().item<double>());
    }
  }
}

}  // namespace
}  // namespace prefill
