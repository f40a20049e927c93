// The planted workload: softmax attention over it does what the truth says.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tasks/planted.h"

namespace prefill {
namespace {

// Probabilities [Hq, n, n] of causal softmax attention.
at::Tensor probabilities(const Qkv& x) {
  const int64_t n = x.seq_len();
  at::Tensor k = x.k.repeat_interleave(x.q_heads() / x.kv_heads(), 0);
  at::Tensor logits = at::matmul(x.q, k.transpose(1, 2)) * x.scale;
  logits.masked_fill_(at::ones({n, n}, at::kBool).triu(1), -INFINITY);
  return at::softmax(logits, -1);
}

class PlantedShapes : public testing::TestWithParam<PlantedSpec> {};

TEST_P(PlantedShapes, OracleTilesHoldTheMass) {
  const PlantedSpec spec = GetParam();
  const Planted p = planted(spec);
  const at::Tensor prob = probabilities(p.qkv);
  at::Tensor mask = p.oracle.repeat_interleave(spec.tile, 1)
                        .repeat_interleave(spec.tile, 2)
                        .slice(1, 0, spec.tokens)
                        .slice(2, 0, spec.tokens);
  const at::Tensor covered = (prob * mask).sum(-1);  // [Hq, n]
  EXPECT_GT(covered.mean().item<double>(), 0.97);
  EXPECT_GT(covered.mean(-1).min().item<double>(), 0.95);
  const double density = p.oracle.to(at::kFloat).mean().item<double>();
  EXPECT_LT(density, 0.4);
  EXPECT_FALSE(p.oracle.triu(1).any().item<bool>());
  EXPECT_TRUE(p.oracle.diagonal(0, 1, 2).all().item<bool>());
  // a mask of equal density at other places does not: mirror each row's tiles
  at::Tensor elsewhere = at::zeros_like(p.oracle);
  for (int64_t r = 0; r < p.oracle.size(1); ++r)
    elsewhere.select(1, r).slice(1, 0, r + 1).copy_(p.oracle.select(1, r).slice(1, 0, r + 1).logical_not());
  at::Tensor off = elsewhere.repeat_interleave(spec.tile, 1)
                       .repeat_interleave(spec.tile, 2)
                       .slice(1, 0, spec.tokens)
                       .slice(2, 0, spec.tokens);
  EXPECT_LT((prob * off).sum(-1).mean().item<double>(), 0.03);
}

TEST_P(PlantedShapes, EveryKindIsWhereTheTruthSays) {
  const PlantedSpec spec = GetParam();
  const Planted p = planted(spec);
  const at::Tensor prob = probabilities(p.qkv);
  const int64_t n = spec.tokens;
  const double often = 10.0 / double(n);  // many times what a key gets on average
  for (int h = 0; h < spec.q_heads; ++h) {
    const PlantedHead& head = p.heads[size_t(h)];
    const auto a = prob[h];
    if (head.kind == PlantedHead::columns) {
      ASSERT_FALSE(head.keys.empty());
      for (int64_t j : head.keys)
        EXPECT_GT(a.slice(0, j, n).select(1, j).mean().item<double>(), often) << h << " key " << j;
    } else if (head.kind == PlantedHead::diagonals) {
      ASSERT_FALSE(head.offsets.empty());
      for (int64_t d : head.offsets)
        EXPECT_GT(a.diagonal(-d).mean().item<double>(), often) << h << " offset " << d;
    } else {
      ASSERT_FALSE(head.tiles.empty());
      for (auto [row, column] : head.tiles) {
        const auto tile = a.slice(0, row * spec.tile, std::min(n, (row + 1) * spec.tile))
                              .slice(1, column * spec.tile, (column + 1) * spec.tile);
        EXPECT_GT(tile.sum(-1).mean().item<double>(), 0.1) << h << " tile " << row << "," << column;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, PlantedShapes,
    testing::Values(PlantedSpec{},
                    PlantedSpec{.tokens = 700, .q_heads = 3, .kv_heads = 3, .head_dim = 128, .seed = 2},
                    PlantedSpec{.tokens = 513, .q_heads = 6, .kv_heads = 1, .tile = 32, .seed = 3}));

TEST(Planted, SameBytesAndRefusals) {
  EXPECT_TRUE(at::equal(planted({}).qkv.q, planted({}).qkv.q));
  EXPECT_FALSE(at::equal(planted({}).qkv.q, planted({.seed = 9}).qkv.q));
  EXPECT_THROW(planted({.head_dim = 32}), InputError);
  EXPECT_THROW(planted({.q_heads = 3, .kv_heads = 2}), InputError);
  EXPECT_THROW(planted({.tokens = 100}), InputError);
}

}  // namespace
}  // namespace prefill
