// MInference and FlexPrefill under semantics: released against scripts/fixtures/reference_selection.py, which
// restates the released programs in plain torch.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/base/text.h"
#include "core/engine.h"
#include "core/model/safetensors.h"

namespace prefill {
namespace {

using nlohmann::json;

class ReferenceSelection : public testing::Test {
 protected:
  ReferenceSelection()
      : file_(SafetensorsFile::open(PREFILL_SOURCE_DIR "/tests/methods/data/selection.safetensors")) {
    cases_ = json::parse(file_.meta("cases"));
  }
  Qkv inputs(int64_t n) const {
    const at::Tensor k = file_.tensor(str("k.", n)).to(at::kFloat);
    return {file_.tensor(str("q.", n)).to(at::kFloat), k, k, 1 / std::sqrt(double(k.size(2)))};
  }
  /// bool [heads, rows, columns] of the fixture's bit rows.
  at::Tensor bits(const std::string& name, int64_t rows, int64_t columns) const {
    const at::Tensor bytes = file_.tensor(name).to(at::kInt);
    const at::Tensor shift = at::arange(8, at::kInt);
    return bytes.unsqueeze(-1)
        .bitwise_right_shift(shift)
        .bitwise_and(1)
        .flatten(1)
        .narrow(1, 0, rows * columns)
        .view({-1, rows, columns})
        .to(at::kBool);
  }
  struct Run {
    AttentionPlan plan;
    json facts;
  };
  Run run(const json& c) const {
    const Qkv qkv = inputs(c["n"]);
    json params = c["params"];
    params["semantics"] = "released";
    const MethodEnv env{ModelShape{"fixture", 1, qkv.q_heads(), qkv.kv_heads(), qkv.head_dim()}};
    const auto method = make_method(c["method"], params, env);
    const auto backend = backends().at("cpu-ref").make();
    const auto clock = make_cpu_clock();
    const auto state = method->begin_prompt(qkv.seq_len());
    Run r{method->plan({qkv, 0, qkv.seq_len(), *backend, *clock}, *state), {}};
    check(r.plan, qkv.q_heads(), qkv.seq_len());
    r.facts = method->report(*state);
    return r;
  }
  int tested(const std::string& method, const std::function<void(const json&)>& body) const {
    int count = 0;
    for (const json& c : cases_)
      if (c["method"] == method) {
        SCOPED_TRACE(c["name"].get<std::string>());
        body(c);
        ++count;
      }
    return count;
  }
  SafetensorsFile file_;
  json cases_;
};

/// Entries that differ / entries set in the reference.
double disagreement(const at::Tensor& a, const at::Tensor& reference) {
  return double((a ^ reference).sum().item<int64_t>()) / double(reference.sum().item<int64_t>());
}

// A near-tie in float32 may fall either way on another processor: 1 in 1,000 is allowed for it.
constexpr double kTies = 1e-3;

TEST_F(ReferenceSelection, MInferenceVerticalSlashKeys) {
  int compared = 0;
  const int count = tested("minference", [&](const json& c) {
    // The 100 nearest distances tie at +inf by rule: a budget below that is a choice among ties, which the
    // source leaves to its top-k and nobody can agree with.
    if (c["params"].value("slash", 100) < 100) return;
    ++compared;
    const int64_t n = c["n"], rows = (n + 63) / 64;
    const at::Tensor row_keys = bits(c["name"], rows, n);
    const at::Tensor reference = row_keys.repeat_interleave(64, 1).narrow(1, 0, n).tril();
    EXPECT_LE(disagreement(token_mask(run(c).plan, n), reference), kTies);
  });
  EXPECT_EQ(count, 6);
  EXPECT_EQ(compared, 4);
}

TEST_F(ReferenceSelection, FlexPrefillBlocks) {
  const int count = tested("flexprefill", [&](const json& c) {
    const int64_t n = c["n"], block = c["params"]["block_size"], blocks = (n + block - 1) / block;
    const Run r = run(c);
    const at::Tensor reference = bits(c["name"], blocks, blocks);
    for (int64_t h = 0; h < reference.size(0); ++h) {
      ASSERT_EQ(r.plan.heads[size_t(h)].kind, Route::tiles);
      EXPECT_LE(disagreement(tile_mask(r.plan.tiles, r.plan.heads[size_t(h)].index, n), reference[h]), kTies)
          << "head " << h;
    }
    EXPECT_EQ(r.facts["query_aware_heads"], c["query_aware"]);
  });
  EXPECT_EQ(count, 10);
}

}  // namespace
}  // namespace prefill
