#include "tests/conformance/prompts.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/text.h"

namespace prefill::conformance {

std::string Shape::text() const {
  return str("n=", n, " Hq=", q_heads, " Hkv=", kv_heads, " D=", head_dim, " layers=", layers);
}

Qkv planted(const Shape& s, int64_t seed, int layer) {
  auto generator = at::detail::createCPUGenerator(uint64_t(seed * 1009 + layer));
  auto normal = [&](int64_t heads) { return at::randn({heads, s.n, s.head_dim}, generator, at::kFloat); };
  Qkv a{normal(s.q_heads), normal(s.kv_heads), normal(s.kv_heads), 1 / std::sqrt(double(s.head_dim))};
  // Position waves in the first 16 dimensions: q.k there peaks where i - j is near 0 and near 5 * (layer +
  // 3).
  const at::Tensor pos = at::arange(s.n, at::kFloat).unsqueeze(1);
  const at::Tensor freq = at::exp(at::arange(8, at::kFloat) * -0.6);
  const at::Tensor k_wave = at::cat({at::cos(pos * freq), at::sin(pos * freq)}, 1) * 1.6;
  for (int h = 0; h < s.q_heads; ++h) {
    const at::Tensor shifted = pos - (h % 2 ? 5.0 * (layer + 3) : 0.0);
    a.q[h].narrow(1, 0, 16).copy_(at::cat({at::cos(shifted * freq), at::sin(shifted * freq)}, 1) * 1.6);
  }
  a.k.narrow(2, 0, 16).copy_(k_wave.expand({s.kv_heads, s.n, 16}));
  // A direction that every query likes, on the first key and on every 37th.
  a.q.select(2, 16).fill_(2.0);
  a.k.select(2, 16).fill_(0.0);
  a.k.select(2, 16).slice(1, 0, s.n, 37).fill_(3.0 + layer);
  return a;
}

MethodEnv env_of(const Shape& s) {
  return {ModelShape{"conformance", s.layers, s.q_heads, s.kv_heads, s.head_dim, 10000.0}};
}

PromptRun run_prompt(const Method& method, const KernelBackend& backend, const Shape& s, int64_t seed) {
  PromptRun run;
  const auto clock = make_cpu_clock();
  const auto state = method.begin_prompt(s.n);
  for (int layer = 0; layer < s.layers; ++layer) {
    const Qkv qkv = planted(s, seed, layer);
    const LayerContext context{qkv, layer, s.n, backend, *clock};
    run.plans.push_back(method.plan(context, *state));
    const AttendResult result = backend.attend(qkv, run.plans.back());
    method.observe(context, result, *state);
    run.outs.push_back(result.out);
  }
  return run;
}

std::pair<at::Tensor, at::Tensor> masked_attention(const Qkv& a, const at::Tensor& mask) {
  const int64_t group = a.q_heads() / a.kv_heads();
  const at::Tensor k = a.k.to(at::kDouble).repeat_interleave(group, 0),
                   v = a.v.to(at::kDouble).repeat_interleave(group, 0);
  const at::Tensor logits = (at::matmul(a.q.to(at::kDouble), k.transpose(1, 2)) * a.scale)
                                .masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity());
  return {at::matmul(logits.softmax(-1), v), logits.logsumexp(-1)};
}

namespace {

std::string csr_difference(const char* what, const at::Tensor& pa, const at::Tensor& ia, const at::Tensor& pb,
                           const at::Tensor& ib) {
  if (pa.defined() != pb.defined()) return str("only one plan has ", what);
  if (!pa.defined()) return "";
  if (!at::equal(pa, pb)) return str(what, " pointers differ");
  for (int64_t p = 0; p < pa.size(0); ++p) {
    const int64_t used = pa[p][-1].item<int64_t>();
    if (!at::equal(ia[p].narrow(0, 0, used), ib[p].narrow(0, 0, used)))
      return str(what, " of pattern ", p, " differ");
  }
  return "";
}

}  // namespace

std::string difference(const AttentionPlan& a, const AttentionPlan& b, int64_t n) {
  if (a.heads != b.heads) return "routes differ";
  if (a.windows.size() != b.windows.size()) return "numbers of windows differ";
  for (size_t i = 0; i < a.windows.size(); ++i)
    if (a.windows[i].sink != b.windows[i].sink || a.windows[i].local != b.windows[i].local ||
        a.windows[i].last != b.windows[i].last)
      return str("window ", i, " differs");
  if (a.tiles.q_tile != b.tiles.q_tile || a.tiles.k_tile != b.tiles.k_tile ||
      a.tiles.step() != b.tiles.step() || a.tiles.col_rows != b.tiles.col_rows)
    return "tile grids differ";
  if (auto d =
          csr_difference("tiles", a.tiles.tile_ptr, a.tiles.tile_idx, b.tiles.tile_ptr, b.tiles.tile_idx);
      !d.empty())
    return d;
  if (auto d = csr_difference("columns", a.tiles.col_ptr, a.tiles.col_idx, b.tiles.col_ptr, b.tiles.col_idx);
      !d.empty())
    return d;
  if (a.want_tile_mean != b.want_tile_mean) return "requests for tile means differ";
  if (a.resume.has_value() != b.resume.has_value() || a.complement.has_value() != b.complement.has_value())
    return "one plan resumes or complements, the other does not";
  if (a.resume) {
    if (!at::equal(a.resume->row_max, b.resume->row_max) ||
        !at::equal(a.resume->row_sum, b.resume->row_sum) || !at::equal(a.resume->acc, b.resume->acc))
      return "softmax states differ";
    if (a.resume->covered && b.resume->covered) return difference(*a.resume->covered, *b.resume->covered, n);
  }
  if (a.complement && !(at::equal(a.complement->k_mean, b.complement->k_mean) &&
                        at::equal(a.complement->v_mean, b.complement->v_mean)))
    return "pooled complements differ";
  return "";
}

}  // namespace prefill::conformance
