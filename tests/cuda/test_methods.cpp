// Every registered method on the GPU: its plan there is the plan it makes on the CPU, up to near ties, and the cuda
// backend computes that plan as cpu-ref does.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/engine.h"

namespace prefill {
namespace {

/// Queries that look for a few topics, keys that carry them, a sink: attention with something to select.
Qkv topical(int64_t n, int q_heads, int kv_heads, int dim) {
  at::manual_seed(3);
  const auto topics = at::randn({8, dim}), of_key = at::randint(8, {n}, at::kLong), of_query = at::randint(8, {n}, at::kLong);
  Qkv a;
  a.k = topics.index_select(0, of_key).unsqueeze(0) + 0.6 * at::randn({kv_heads, n, dim});
  a.q = topics.index_select(0, of_query).unsqueeze(0) + 0.6 * at::randn({q_heads, n, dim});
  a.k.select(1, 0).add_(topics.mean(0) * 2);
  a.v = at::randn({kv_heads, n, dim});
  for (at::Tensor* t : {&a.q, &a.k, &a.v}) *t = t->to(at::kBFloat16);
  a.scale = 1 / std::sqrt(double(dim));
  return a;
}

class CudaMethods : public testing::TestWithParam<std::string> {};

TEST_P(CudaMethods, PlansAndComputesLikeTheCpu) {
  const BackendInfo& info = backends().at("cuda");
  if (const Support s = info.available(); !s) GTEST_SKIP() << s.why;
  const auto cuda = info.make(), reference = backends().at("cpu-ref").make();
  const MethodInfo& m = methods().at(GetParam());
  const auto params = m.test_params.empty() ? nlohmann::json::object() : nlohmann::json::parse(m.test_params);
  const Qkv a = topical(1300, 8, 2, 64), g{a.q.cuda(), a.k.cuda(), a.v.cuda(), a.scale};
  const auto clock = make_cpu_clock();
  std::unique_ptr<Method> method;
  AttentionPlan plans[2];
  try {
    method = make_method(GetParam(), params, MethodEnv{ModelShape{"test", 1, 8, 2, 64, 10000.}});
    int i = 0;
    for (const auto& [backend, qkv] : {std::pair{reference.get(), &a}, {cuda.get(), &g}}) {
      const auto state = method->begin_prompt(a.seq_len());
      plans[i++] = method->plan({*qkv, 0, a.seq_len(), *backend, *clock}, *state);
    }
  } catch (const Unsupported& e) {
    GTEST_SKIP() << e.what();
  } catch (const InputError& e) {
    GTEST_SKIP() << "needs an artefact: " << e.what();
  }
  const AttentionPlan moved = on_cpu(plans[1]);
  check(moved, 8, a.seq_len());
  if (GetParam() != "random") {
    const auto want = token_mask(plans[0], a.seq_len()), got = token_mask(moved, a.seq_len());
    const double causal = 8. * 1300 * 1301 / 2;
    EXPECT_LE((want != got).sum().item<double>() / causal, 0.005) << "share of pairs on which the plans differ";
  }
  ASSERT_TRUE(cuda->supports(g, plans[1])) << cuda->supports(g, plans[1]).why;
  const AttendResult got = cuda->attend(g, plans[1]), want = reference->attend(a, moved);
  const auto x = got.out.cpu().to(at::kDouble), y = want.out.to(at::kDouble);
  EXPECT_LT(((x - y).square().sum() / y.square().sum()).item<double>(), 3e-5);
}

INSTANTIATE_TEST_SUITE_P(All, CudaMethods, testing::ValuesIn(methods().names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace prefill
