#include "core/backend.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace prefill {

Registry<BackendInfo>& backends() {
  static Registry<BackendInfo> all("backend");
  return all;
}

PartialSoftmax KernelBackend::attend_partial(const Qkv&, const AttentionPlan&) const {
  throw Unsupported("backend '" + name() + "' can not hand over its softmax state");
}

at::Tensor KernelBackend::pool_mean(const at::Tensor& x, int tile) const {
  if (tile < 1) throw InputError(str("pool_mean: a tile of ", tile, " rows; at least 1 is needed"));
  const int64_t heads = x.size(0), n = x.size(1), dim = x.size(2), full = n / tile;
  std::vector<at::Tensor> parts;
  if (full)
    parts.push_back(x.narrow(1, 0, full * tile).reshape({heads, full, tile, dim}).mean(2, false, at::kFloat));
  if (full * tile < n) parts.push_back(x.narrow(1, full * tile, n - full * tile).mean(1, true, at::kFloat));
  return at::cat(parts, 1);
}

at::Tensor KernelBackend::tail_probs(const Qkv& a, int64_t tail) const {
  const int64_t n = a.seq_len(), t = std::min(tail, n), group = a.q_heads() / a.kv_heads();
  if (t < 1) throw InputError(str("tail_probs: a tail of ", tail, " queries; at least 1 is needed"));
  const auto q =
      (a.q.narrow(1, n - t, t).to(at::kFloat) * a.scale).reshape({a.kv_heads(), group * t, a.head_dim()});
  auto logits = at::bmm(q, a.k.to(at::kFloat).transpose(1, 2)).view({a.q_heads(), t, n});
  const auto pos = at::arange(n - t, n, a.q.options().dtype(at::kLong)).unsqueeze(1);
  const auto key = at::arange(n, a.q.options().dtype(at::kLong)).unsqueeze(0);
  return at::softmax(logits.masked_fill_(key > pos, -std::numeric_limits<float>::infinity()), -1);
}

std::pair<at::Tensor, at::Tensor> KernelBackend::tail_sums(const Qkv& a, int64_t tail) const {
  const auto probs = tail_probs(a, tail);
  const int64_t heads = probs.size(0), t = probs.size(1), n = probs.size(2);
  // Rows are laid out so that equal distances share a column: in rows of n+t-1 values, row i of the reversed
  // tail starts i values later, and column e holds distance n-1-e.
  const auto padded = at::zeros({heads, t, n + t}, probs.options());
  padded.narrow(2, 0, n).copy_(probs.flip(1));
  const auto sheared = padded.as_strided({heads, t, n + t - 1}, {t * (n + t), n + t - 1, 1});
  return {probs.sum(1), sheared.sum(1).narrow(1, 0, n).flip(1)};
}

}  // namespace prefill
