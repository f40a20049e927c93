// Selections under `semantics: released` against what the released code selects, restated in plain torch
// (scripts/fixtures/reference_selections.py; selections.json is written by make_selection_fixtures.py).
#include <gtest/gtest.h>

#include "core/base/text.h"
#include "tests/methods2/harness.h"

namespace prefill {
namespace {

using nlohmann::json;
using testing::columns_of;
using testing::plan_of;
using testing::synthetic_qkv;
using testing::tiles_of;

const json& cases() {
  static const json all = json::parse(read_file(PREFILL_SOURCE_DIR "/tests/methods2/selections.json"));
  return all;
}

/// Packed bits, most significant first, as a bool tensor.
at::Tensor unpacked(const json& c) {
  const auto shape = c["shape"].get<std::vector<int64_t>>();
  const auto hex = c["bits"].get<std::string>();
  at::Tensor out = at::zeros(shape, at::kBool);
  bool* p = out.data_ptr<bool>();
  auto digit = [](char x) { return x <= '9' ? x - '0' : x - 'a' + 10; };
  for (int64_t i = 0; i < out.numel(); ++i) p[i] = digit(hex.at(size_t(i / 4))) >> (3 - i % 4) & 1;
  return out;
}

/// Which keys each tile row of head h computes, from tiles and columns: bool [rows, n], causal for the row's
/// last query.
at::Tensor keys_of(const AttentionPlan& plan, int h, int64_t n) {
  const TileSet& t = plan.tiles;
  at::Tensor keys = tiles_of(plan, h, n).repeat_interleave(t.k_tile, 1).narrow(1, 0, n);
  keys = keys | columns_of(plan, h, n);
  at::Tensor last = ((at::arange(keys.size(0)) + 1) * t.q_tile).clamp_max(n).unsqueeze(1);
  return keys & (at::arange(n).unsqueeze(0) < last);
}

class Selection : public ::testing::TestWithParam<size_t> {};

TEST_P(Selection, AgreesWithTheRelease) {
  const json& c = cases().at(GetParam());
  const int64_t n = c["n"], q_heads = c["q_heads"];
  const Qkv x = synthetic_qkv(c["seed"].get<uint64_t>(), q_heads, c["kv_heads"], n, c["head_dim"]);
  const AttentionPlan plan = plan_of(c["method"], c["params"], x);
  at::Tensor want = unpacked(c);
  const int64_t share = q_heads / want.size(0);
  int64_t same = 0, cells = 0;
  for (int h = 0; h < int(q_heads); ++h) {
    at::Tensor expected = want[h / share], got;
    if (c["form"] == "columns") got = columns_of(plan, h, n);
    if (c["form"] == "keys") got = keys_of(plan, h, n);
    if (c["form"] == "tiles") {
      got = tiles_of(plan, h, n);
      // A plan holds the diagonal whether or not the release forces it.
      const TileSet& t = plan.tiles;
      at::Tensor row = at::arange(got.size(0)).unsqueeze(1), col = at::arange(got.size(1)).unsqueeze(0);
      at::Tensor causal = col * t.k_tile < ((row + 1) * t.q_tile).clamp_max(n);
      expected = expected | (causal & ((col + 1) * t.k_tile > row * t.q_tile));
    }
    ASSERT_EQ(got.sizes(), expected.sizes());
    same += (got == expected).sum().item<int64_t>();
    cells += got.numel();
  }
  EXPECT_GE(double(same) / double(cells), 0.995)
      << c["method"] << " " << c["params"] << ": " << cells - same << " of " << cells << " differ";
}

std::string case_name(const ::testing::TestParamInfo<size_t>& c) {
  return str(cases().at(c.param)["method"].get<std::string>(), c.param);
}
INSTANTIATE_TEST_SUITE_P(Reference, Selection, ::testing::Range(size_t(0), size_t(18)), case_name);

TEST(ReferenceFixtures, AreTheEighteenThatRun) { EXPECT_EQ(cases().size(), 18u); }

}  // namespace
}  // namespace prefill
