#include "core/model/layer_ops.h"

#include <ATen/ATen.h>

#include "core/model/rope.h"

namespace prefill {
namespace {

const LayerKernels& kernels_of(const at::Tensor& x) {
  static const LayerKernels none;
  return x.is_cuda() ? cuda_layer_kernels() : none;
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out) {
  if (const auto kernel = kernels_of(x).rms_norm)
    if (at::Tensor y = kernel(x, weight, eps, out); y.defined()) return y;
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = wide.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
  return (wide * scale).mul_(weight).to(out);
}

void add_to(at::Tensor x, const at::Tensor& y) {
  const auto kernel = kernels_of(x).add_to;
  if (!kernel || !kernel(x, y)) x.add_(y);
}

at::Tensor add_rms_norm(at::Tensor x, const at::Tensor& y, const at::Tensor& weight, double eps,
                        at::ScalarType out) {
  if (const auto kernel = kernels_of(x).add_rms_norm)
    if (at::Tensor normed = kernel(x, y, weight, eps, out); normed.defined()) return normed;
  x.add_(y);
  return rms_norm(x, weight, eps, out);
}

at::Tensor silu_mul(at::Tensor gate_up) {
  if (const auto kernel = kernels_of(gate_up).silu_mul)
    if (at::Tensor y = kernel(gate_up); y.defined()) return y;
  const int64_t cols = gate_up.size(1) / 2;
  at::Tensor gate = gate_up.narrow(1, 0, cols);
  at::silu_(gate);
  return gate.mul_(gate_up.narrow(1, cols, cols));
}

void split_heads(at::Tensor all, const HeadNorms& norms, const at::Tensor& cos, const at::Tensor& sin,
                 at::Tensor q, at::Tensor k, at::Tensor v) {
  const auto kernel = kernels_of(all).split_heads;
  if (kernel && kernel(all, norms, cos, sin, q, k, v)) return;
  const int64_t hq = q.size(1), hkv = k.size(0);
  all = all.view({all.size(0), hq + 2 * hkv, q.size(2)});
  at::Tensor queries = all.narrow(1, 0, hq), keys = all.narrow(1, hq, hkv);
  if (norms.q.defined()) {
    queries = rms_norm(queries, norms.q, norms.eps, all.scalar_type());
    keys = rms_norm(keys, norms.k, norms.eps, all.scalar_type());
    apply_rope(queries, cos, sin);
    apply_rope(keys, cos, sin);
  } else {
    apply_rope(all.narrow(1, 0, hq + hkv), cos, sin);
  }
  q.copy_(queries);
  k.copy_(keys.transpose(0, 1));
  v.copy_(all.narrow(1, hq + hkv, hkv).transpose(0, 1));
}

}  // namespace prefill
