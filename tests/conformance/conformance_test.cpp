// Tests that every registered method gets for free. A method file is held to these without being named here.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/base/text.h"
#include "tests/conformance/prompts.h"

namespace prefill::conformance {
namespace {

using nlohmann::json;

// Shapes that hurt: shorter than a tile, one token, odd, next to a multiple of a tile, every GQA ratio, one
// head.
const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {1, 2, 1, 64},   {2, 1, 1, 64},    {17, 4, 4, 64},  {63, 3, 1, 64},  {64, 4, 1, 64},  {65, 1, 1, 128},
      {127, 8, 1, 64}, {129, 2, 2, 128}, {193, 6, 2, 64}, {256, 4, 2, 64}, {385, 3, 1, 64}, {511, 4, 1, 64},
  };
  return all;
}
/// Long enough for several rows of the largest default tile.
const Shape kLong{701, 4, 2, 64, 3};

const KernelBackend& backend(const char* name) {
  static std::map<std::string, std::unique_ptr<KernelBackend>> made;
  auto& b = made[name];
  if (!b) b = backends().at(name).make();
  return *b;
}

class Conformance : public testing::TestWithParam<std::string> {
 protected:
  const MethodInfo& info() const { return methods().at(GetParam()); }
  bool has_field(const std::string& name) const {
    for (const FieldInfo& f : info().schema)
      if (f.name == name) return true;
    return false;
  }
  /// The params a method is tried with: its defaults, its test params, and both under the released rules.
  std::vector<json> settings() const {
    std::vector<json> all{json::object()};
    if (!info().test_params.empty()) all.push_back(json::parse(info().test_params));
    if (has_field("semantics"))
      for (size_t i = 0, count = all.size(); i < count; ++i) {
        json released = all[i];
        released["semantics"] = "released";
        all.push_back(released);
      }
    return all;
  }
  json test_params() const {
    return info().test_params.empty() ? json::object() : json::parse(info().test_params);
  }
  std::unique_ptr<Method> make(const json& params, const Shape& s) const {
    return make_method(GetParam(), params, env_of(s));
  }
  std::string where(const Shape& s, const json& params) const {
    return str("method ", GetParam(), " ", params.dump(), ", ", s.text());
  }
  double mean_density(const PromptRun& run, const Shape& s) const {
    double sum = 0;
    int64_t heads = 0;
    for (const AttentionPlan& plan : run.plans)
      for (double d : density(plan, s.n)) sum += d, ++heads;
    return sum / double(heads);
  }
};

TEST_P(Conformance, SaysWhatItIs) {
  EXPECT_FALSE(info().doc.empty());
  EXPECT_FALSE(info().source.empty());
  EXPECT_FALSE(info().cost.empty());
  for (const FieldInfo& f : info().schema) EXPECT_FALSE(f.doc.empty()) << GetParam() << ": field " << f.name;
  if (!info().knob.empty()) {
    EXPECT_TRUE(has_field(info().knob)) << GetParam() << ": the knob '" << info().knob << "' is no field";
    EXPECT_GE(info().knob_values.size(), 3u) << GetParam();
  }
}

// The token mask is rebuilt key by key, so that density (row pointers and closed forms) is held against a
// count, and the kernel's output against a softmax over exactly those keys.
TEST_P(Conformance, PlansAreSoundAndMeanWhatTheySay) {
  for (const json& params : settings())
    for (const Shape& s : shapes()) {
      SCOPED_TRACE(where(s, params));
      const auto method = make(params, s);
      const PromptRun run = run_prompt(*method, backend("cpu-ref"), s, 7);
      for (int layer = 0; layer < s.layers; ++layer) {
        const AttentionPlan& plan = run.plans[size_t(layer)];
        ASSERT_NO_THROW(check(plan, s.q_heads, s.n));
        const at::Tensor mask = token_mask(plan, s.n);
        const bool twice = plan.resume && plan.resume->overlap_allowed;  // a release that counts keys twice
        const auto told = density(plan, s.n);
        ASSERT_EQ(int(told.size()), s.q_heads);
        for (int h = 0; h < s.q_heads; ++h) {
          ASSERT_EQ(mask[h].triu(1).sum().item<int64_t>(), 0) << "head " << h << " sees the future";
          ASSERT_EQ(mask[h].any(-1).sum().item<int64_t>(), s.n)
              << "head " << h << " has a query that sees nothing";
          const double counted = double(mask[h].sum().item<int64_t>()) / (double(s.n) * double(s.n + 1) / 2);
          if (twice)
            ASSERT_GE(told[size_t(h)], counted - 1e-9) << "head " << h << " of layer " << layer;
          else
            ASSERT_NEAR(told[size_t(h)], counted, 1e-9) << "head " << h << " of layer " << layer;
        }
        const at::Tensor& out = run.outs[size_t(layer)];
        ASSERT_TRUE(at::isfinite(out).all().item<bool>());
        // Pooled keys are no keys of the mask, and a mask can not say "twice"; the kernels' tests hold those.
        if (plan.complement || twice) continue;
        const at::Tensor expected = masked_attention(planted(s, 7, layer), mask).first;
        ASSERT_LE((out.to(at::kDouble) - expected).abs().max().item<double>(), 2e-5) << "layer " << layer;
      }
    }
}

TEST_P(Conformance, FullBudgetEqualsDense) {
  if (info().full_budget.empty()) GTEST_SKIP() << GetParam() << " declares no full budget";
  for (const Shape& s : shapes()) {
    const json params = json::parse(info().full_budget);
    SCOPED_TRACE(where(s, params));
    const auto method = make(params, s);
    const PromptRun run = run_prompt(*method, backend("cpu-ref"), s, 11);
    for (int layer = 0; layer < s.layers; ++layer) {
      for (double d : density(run.plans[size_t(layer)], s.n)) ASSERT_NEAR(d, 1, 1e-9) << "layer " << layer;
      const Qkv qkv = planted(s, 11, layer);
      const at::Tensor all = at::ones({s.q_heads, s.n, s.n}, at::kBool).tril();
      const at::Tensor dense = masked_attention(qkv, all).first;
      ASSERT_LE((run.outs[size_t(layer)].to(at::kDouble) - dense).abs().max().item<double>(), 2e-5)
          << "layer " << layer;
    }
  }
}

TEST_P(Conformance, SameInputSamePlan) {
  for (const json& params : settings()) {
    SCOPED_TRACE(where(kLong, params));
    const PromptRun a = run_prompt(*make(params, kLong), backend("cpu"), kLong, 3);
    const PromptRun b = run_prompt(*make(params, kLong), backend("cpu"), kLong, 3);
    for (int layer = 0; layer < kLong.layers; ++layer)
      ASSERT_EQ(difference(a.plans[size_t(layer)], b.plans[size_t(layer)], kLong.n), "") << "layer " << layer;
  }
}

// What a prompt leaves behind in a method object would change the next prompt's plans.
TEST_P(Conformance, PromptsDoNotLeakIntoEachOther) {
  for (const json& params : settings()) {
    SCOPED_TRACE(where(kLong, params));
    const auto method = make(params, kLong);
    run_prompt(*method, backend("cpu"), kLong, 5);
    const PromptRun after = run_prompt(*method, backend("cpu"), kLong, 6);
    const PromptRun alone = run_prompt(*make(params, kLong), backend("cpu"), kLong, 6);
    for (int layer = 0; layer < kLong.layers; ++layer)
      ASSERT_EQ(difference(after.plans[size_t(layer)], alone.plans[size_t(layer)], kLong.n), "")
          << "layer " << layer;
  }
}

TEST_P(Conformance, DensityRisesWithTheKnob) {
  if (info().knob.empty()) GTEST_SKIP() << GetParam() << " declares no knob";
  // Forced windows, sinks and dense tails of a method's defaults may cover a short prompt whole: the knob is
  // tried on the shortest of three prompts that its first value leaves sparse.
  auto density_at = [&](size_t i, const Shape& s) {
    json params = test_params();
    const double value = info().knob_values[i];
    params[info().knob] = std::floor(value) == value ? json(int64_t(value)) : json(value);
    SCOPED_TRACE(where(s, params));
    return mean_density(run_prompt(*make(params, s), backend("cpu"), s, 9), s);
  };
  Shape s = kLong;
  for (int64_t n : {int64_t(kLong.n), int64_t(3000), int64_t(7000)}) {
    s.n = n;
    if (density_at(0, s) < 1) break;
  }
  double before = 0, first = 0;
  for (size_t i = 0; i < info().knob_values.size(); ++i) {
    const double now = density_at(i, s);
    EXPECT_GE(now, before - 1e-9);
    before = now;
    if (i == 0) first = now;
  }
  EXPECT_GT(before, first) << GetParam() << ": the knob moves nothing between its first and last value";
}

TEST_P(Conformance, ParamsSurviveJson) {
  std::vector<json> all = settings();
  if (!info().full_budget.empty()) all.push_back(json::parse(info().full_budget));
  for (const json& params : all) {
    SCOPED_TRACE(str("method ", GetParam(), " ", params.dump()));
    Diagnostics bad;
    const Located given = from_json(params);
    const ParamsHandle once = info().read({&given}, "", "", bad);
    const Located again = from_json(json::parse(once.canonical.dump()));
    const ParamsHandle twice = info().read({&again}, "", "", bad);
    ASSERT_TRUE(bad.empty()) << bad.front().print();
    EXPECT_EQ(once.canonical.dump(), twice.canonical.dump());
    EXPECT_EQ(once.canonical.size(), info().schema.size());
    EXPECT_EQ(once.invalid, "");
    for (const auto& [key, value] : params.items()) EXPECT_EQ(once.canonical.at(key), value) << key;
  }
}

TEST_P(Conformance, BackendsAgreeOnThePlan) {
  std::vector<Shape> some{{65, 1, 1, 128}, {193, 6, 2, 64}, {300, 8, 1, 64}, kLong};
  for (const Shape& s : some) {
    const json params = test_params();
    SCOPED_TRACE(where(s, params));
    const PromptRun run = run_prompt(*make(params, s), backend("cpu-ref"), s, 13);
    for (int layer = 0; layer < s.layers; ++layer) {
      const Qkv qkv = planted(s, 13, layer);
      const AttentionPlan& plan = run.plans[size_t(layer)];
      const Support can = backend("cpu").supports(qkv, plan);
      ASSERT_TRUE(can) << can.why;
      AttendOptions options;
      options.lse = true;
      const AttendResult fast = backend("cpu").attend(qkv, plan, options),
                         slow = backend("cpu-ref").attend(qkv, plan, options);
      ASSERT_LE((fast.out - slow.out).abs().max().item<double>(), 2e-4) << "layer " << layer;
      ASSERT_LE((fast.lse - slow.lse).abs().max().item<double>(), 2e-4) << "layer " << layer;
    }
  }
}

// bf16 is what models run in; a method must take it and choose nearly the same.
TEST_P(Conformance, TakesBfloat16) {
  const Shape s{193, 4, 2, 64, 2};
  const json params = test_params();
  SCOPED_TRACE(where(s, params));
  const auto method = make(params, s);
  const auto clock = make_cpu_clock();
  const auto state = method->begin_prompt(s.n);
  for (int layer = 0; layer < s.layers; ++layer) {
    Qkv qkv = planted(s, 17, layer);
    qkv.q = qkv.q.to(at::kBFloat16);
    qkv.k = qkv.k.to(at::kBFloat16);
    qkv.v = qkv.v.to(at::kBFloat16);
    const LayerContext context{qkv, layer, s.n, backend("cpu"), *clock};
    const AttentionPlan plan = method->plan(context, *state);
    ASSERT_NO_THROW(check(plan, s.q_heads, s.n));
    const AttendResult result = backend("cpu").attend(qkv, plan);
    method->observe(context, result, *state);
    ASSERT_EQ(result.out.scalar_type(), at::kBFloat16);
    ASSERT_TRUE(at::isfinite(result.out).all().item<bool>());
  }
}

// The model hands over strided views of its projections: [N, H*D] seen as [H,N,D].
TEST_P(Conformance, TakesStridedViews) {
  const Shape s{193, 4, 2, 64, 1};
  const json params = test_params();
  SCOPED_TRACE(where(s, params));
  const Qkv packed = planted(s, 19, 0);
  auto view = [](const at::Tensor& t) { return t.transpose(0, 1).contiguous().transpose(0, 1); };
  const Qkv strided{view(packed.q), view(packed.k), view(packed.v), packed.scale};
  const auto method = make(params, s);
  const auto clock = make_cpu_clock();
  auto plan_of = [&](const Qkv& qkv) {
    const auto state = method->begin_prompt(s.n);
    return method->plan({qkv, 0, s.n, backend("cpu"), *clock}, *state);
  };
  const AttentionPlan a = plan_of(packed), b = plan_of(strided);
  const auto da = density(a, s.n), db = density(b, s.n);
  for (size_t h = 0; h < da.size(); ++h) EXPECT_NEAR(da[h], db[h], 0.05) << "head " << h;
  check(b, s.q_heads, s.n);
}

INSTANTIATE_TEST_SUITE_P(Methods, Conformance, testing::ValuesIn(methods().names()), [](const auto& tested) {
  std::string name = tested.param;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

}  // namespace
}  // namespace prefill::conformance
