// A decoder layer's steps between its products. ATen does them on every device; where a device's adapter has
// a kernel of its own for the case, that one.
#pragma once
#include <ATen/core/Tensor.h>

namespace prefill {

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension, all in float32, rounded once to `out`.
/// x [.., C] float32 or 16 bits; weight [C] float32.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType out);

/// x += y, in place. x [m, C] float32; y [m, C] of any float type.
void add_to(at::Tensor x, const at::Tensor& y);

/// x += y, in place -> rms_norm(x).
at::Tensor add_rms_norm(at::Tensor x, const at::Tensor& y, const at::Tensor& weight, double eps,
                        at::ScalarType out);

/// silu(gate) * up of gate|up [m, 2*C] -> [m, C]; the argument's memory may be used.
at::Tensor silu_mul(at::Tensor gate_up);

/// Weights [D] float32 of the norms over each head of q and k (Qwen3), or undefined.
struct HeadNorms {
  const at::Tensor &q, &k;
  double eps;
};

/// A q|k|v product [m, (Hq + 2*Hkv)*D] (contiguous; its memory may be used) by heads: q and k normed and
/// rotated by cos, sin [m, D/2] float32, and all three written to q [m,Hq,D] and k, v [Hkv,m,D], which may be
/// strided and of another float type.
void split_heads(at::Tensor all, const HeadNorms&, const at::Tensor& cos, const at::Tensor& sin, at::Tensor q,
                 at::Tensor k, at::Tensor v);

/// Kernels of a device for the functions above; null, or an undefined tensor or false as answer: not for this
/// case.
struct LayerKernels {
  at::Tensor (*rms_norm)(const at::Tensor& x, const at::Tensor& weight, double eps,
                         at::ScalarType out) = nullptr;
  bool (*add_to)(const at::Tensor& x, const at::Tensor& y) = nullptr;
  at::Tensor (*add_rms_norm)(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps,
                             at::ScalarType out) = nullptr;
  at::Tensor (*silu_mul)(const at::Tensor& gate_up) = nullptr;
  bool (*split_heads)(const at::Tensor& all, const HeadNorms&, const at::Tensor& cos, const at::Tensor& sin,
                      const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) = nullptr;
};

/// Of CUDA tensors; set by the adapter before main.
inline LayerKernels& cuda_layer_kernels() {
  static LayerKernels kernels;
  return kernels;
}

}  // namespace prefill
