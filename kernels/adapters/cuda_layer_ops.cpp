// The decoder's steps between its products with kernels of their own, behind core/model/layer_ops.h.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/model/layer_ops.h"
#include "kernels/adapters/cuda_tensors.h"
#include "kernels/layer_ops.h"

namespace prefill {
namespace {

using adapters::half;
using adapters::half_dtype;
using adapters::known;
using adapters::stream_of;

/// x += y where y is defined, out = norm(x) where out is.
bool norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps, const at::Tensor& out) {
  const at::ScalarType type = y.defined() ? y.scalar_type() : out.scalar_type();
  const bool fits = x.dim() == 2 && x.scalar_type() == at::kFloat && x.is_contiguous() && (!y.defined() || (half(y) && y.is_contiguous())) &&
                     (!out.defined() || out.scalar_type() == type);
  if (!fits) return false;
  const c10::cuda::CUDAGuard guard(x.device());
  kernels::NormArgs a{};
  a.x = x.data_ptr<float>(), a.dtype = half_dtype(type), a.rows = x.size(0), a.cols = x.size(1), a.eps = float(eps);
  if (y.defined()) a.y = y.const_data_ptr();
  if (out.defined()) a.weight = weight.const_data_ptr<float>(), a.out = out.data_ptr();
  return known(kernels::add_rms_norm_cuda(a, stream_of(x)));
}

at::Tensor add_rms_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps, at::ScalarType type) {
  if (!half(type)) return {};
  const at::Tensor out = at::empty(x.sizes(), x.options().dtype(type));
  return norm(x, y, weight, eps, out) ? out : at::Tensor();
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type) {
  return add_rms_norm(x, {}, weight, eps, type);
}

bool add_to(const at::Tensor& x, const at::Tensor& y) { return norm(x, y, {}, 0, {}); }

at::Tensor silu_mul(const at::Tensor& both) {
  if (!half(both) || both.dim() != 2 || !both.is_contiguous() || both.size(1) % 2) return {};
  const c10::cuda::CUDAGuard guard(both.device());
  const at::Tensor out = at::empty({both.size(0), both.size(1) / 2}, both.options());
  const bool done = known(kernels::silu_mul_cuda(both.const_data_ptr(), out.data_ptr(), half_dtype(both), out.size(0),
                                                 out.size(1), stream_of(both)));
  return done ? out : at::Tensor();
}

bool split_heads(const at::Tensor& all, const HeadNorms& norms, const at::Tensor& cos, const at::Tensor& sin,
                 const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  for (const at::Tensor* t : {&q, &k, &v})
    if (t->scalar_type() != all.scalar_type() || t->stride(2) != 1) return false;
  if (!half(all) || !all.is_contiguous() || !cos.is_contiguous() || !sin.is_contiguous()) return false;
  const c10::cuda::CUDAGuard guard(all.device());
  kernels::SplitHeadsArgs a{};
  a.all = all.const_data_ptr(), a.dtype = half_dtype(all);
  a.q_heads = int(q.size(1)), a.kv_heads = int(k.size(0)), a.dim = int(q.size(2)), a.rows = q.size(0);
  a.cos = cos.const_data_ptr<float>(), a.sin = sin.const_data_ptr<float>();
  if (norms.q.defined()) a.q_norm = norms.q.const_data_ptr<float>(), a.k_norm = norms.k.const_data_ptr<float>();
  a.eps = float(norms.eps);
  a.q = q.data_ptr(), a.q_row_stride = q.stride(0), a.q_head_stride = q.stride(1);
  a.k = k.data_ptr(), a.k_head_stride = k.stride(0), a.k_row_stride = k.stride(1);
  a.v = v.data_ptr(), a.v_head_stride = v.stride(0), a.v_row_stride = v.stride(1);
  return known(kernels::split_heads_cuda(a, stream_of(all)));
}

const bool registered = [] {
  cuda_layer_kernels() = {.rms_norm = rms_norm,
                          .add_to = add_to,
                          .add_rms_norm = add_rms_norm,
                          .silu_mul = silu_mul,
                          .split_heads = split_heads};
  return true;
}();

}  // namespace
}  // namespace prefill
