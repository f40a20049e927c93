#include "methods/parts/stripes.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "core/device_ops.h"

namespace prefill {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
}

std::string wrong_sizes(int block_size, int64_t min_budget, int64_t max_budget) {
  if (block_size != 16 && block_size != 32 && block_size != 64 && block_size != 128)
    return "block_size must be 16, 32, 64 or 128";
  if (max_budget > 0 && max_budget < min_budget) return "max_budget is below min_budget";
  return {};
}

void set_budgets(StripeRules& rules, int64_t min_budget, int64_t max_budget, int64_t n) {
  auto stripes = [&](int64_t tokens) { return (tokens + rules.block - 1) / rules.block; };
  const int64_t blocks = stripes(n);
  rules.most = max_budget > 0 ? std::min(stripes(max_budget), blocks) : blocks;
  rules.least = std::min(stripes(min_budget), rules.most);
}

at::Tensor block_mean_estimate(const Qkv& a, const at::Tensor& key_mean, int64_t rows) {
  if (a.q.is_cuda() && cuda_ops().tail_block_means)
    if (at::Tensor probs = cuda_ops().tail_block_means(a.q, key_mean, a.scale, rows); probs.defined())
      return probs;
  const int64_t group = a.q_heads() / a.kv_heads();
  const at::Tensor q = a.q.narrow(1, a.seq_len() - rows, rows).to(at::kFloat).mean(1) * a.scale;  // [Hq,D]
  const at::Tensor logits =
      at::matmul(q.view({-1, group, int64_t(a.head_dim())}), key_mean.transpose(1, 2));  // [Hkv,g,nb]
  return logits.flatten(0, 1).softmax(-1);
}

StripeChoice choose_stripes(const TailStats& tail, const at::Tensor& from_means, const StripeRules& rules,
                            const std::vector<int64_t>& never_aware) {
  if (tail.vertical.is_cuda() && cuda_ops().choose_stripes && !rules.released && never_aware.empty()) {
    DeviceOps::StripeNumbers n = cuda_ops().choose_stripes(
        tail.vertical, tail.slash, rules.tau > 0 ? from_means : at::Tensor(),
        count_for_mass(tail.vertical, rules.mass, false), count_for_mass(tail.slash, rules.mass, false),
        {rules.block, rules.count_unit, rules.least, rules.most, rules.tau});
    return {n.vertical, n.slash, n.verticals, n.slashes, rules.tau > 0 ? n.aware : at::Tensor()};
  }
  StripeChoice choice;
  auto stripes = [&](const at::Tensor& x) {
    return count_for_mass(x, rules.mass, rules.released)
        .div(rules.count_unit, "floor")
        .add(1)
        .clamp(rules.least, rules.most);
  };
  choice.verticals = stripes(tail.vertical);
  choice.slashes = stripes(tail.slash);
  choice.vertical = sum_bins(tail.vertical, rules.block);
  choice.slash = distance_bins(tail.slash, rules.block, rules.released);
  if (rules.tau > 0) {
    choice.aware = sqrt_js(from_means, choice.vertical, rules.released).lt(rules.tau);  // NaN compares false
    for (const int64_t h : never_aware) choice.aware[h].fill_(false);
    choice.verticals = choice.verticals.masked_fill(choice.aware, rules.least);
    choice.slashes = choice.slashes.masked_fill(choice.aware, rules.least);
  }
  return choice;
}

StripeSets take_stripes(const StripeChoice& choice) {
  return {top_counts(choice.vertical, choice.verticals, 1), top_counts(choice.slash, choice.slashes, 1)};
}

void add_query_aware_blocks(const LayerContext& c, const at::Tensor& key_mean, const at::Tensor& aware,
                            const StripeRules& rules, at::Tensor mask) {
  if (mask.is_cuda() && cuda_ops().add_aware_blocks && !rules.released &&
      cuda_ops().add_aware_blocks(c.qkv.q, key_mean, aware, c.qkv.scale, rules.block, rules.mass, mask))
    return;
  const at::Tensor heads = aware.nonzero().view(-1);  // waits for the device
  if (heads.numel() == 0) return;
  const int64_t group = c.qkv.q_heads() / c.qkv.kv_heads(), blocks = key_mean.size(1);
  const at::Tensor q = c.backend.pool_mean(c.qkv.q.index_select(0, heads), rules.block);
  const at::Tensor k = key_mean.index_select(0, heads.div(group, "floor"));
  const at::Tensor causal = at::ones({blocks, blocks}, heads.options().dtype(at::kBool)).tril();
  const at::Tensor map = (at::matmul(q, k.transpose(1, 2)) * c.qkv.scale)
                             .masked_fill(causal.logical_not(), -kInfinity)
                             .softmax(-1)
                             .flatten(1);
  auto [sorted, order] = map.sort(-1, true);
  const at::Tensor reached = sorted.cumsum(-1);
  const double target = rules.mass * double(blocks);
  at::Tensor keep = rules.released ? reached.le(target) : (reached - sorted).lt(target);
  if (rules.mass >= 1) keep = at::ones_like(keep);  // float32 prefix sums may stop short of all
  const at::Tensor cells = at::zeros_like(keep).scatter(1, order, keep).view({-1, blocks, blocks}) & causal;
  mask.index_put_({heads}, mask.index_select(0, heads) | cells);
}

}  // namespace prefill
