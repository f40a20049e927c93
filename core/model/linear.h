// Weights in the shape that the decoder multiplies with, and where they come from.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/model/checkpoint.h"

namespace prefill {

/// How weights are kept, decided once per model.
struct WeightPolicy {
  at::ScalarType compute = at::kFloat;  ///< dtype of q, k, v, of the KV cache and so of attention
  /// dtype of weights and matrix products. float32 beside a 16-bit `compute` means that this CPU has no units
  /// for 16-bit products: float32 ones are several times faster there, and more exact.
  at::ScalarType stored = at::kFloat;
  at::Device device = at::kCPU;
  bool map = false;  ///< use the file's mapping itself where the dtype allows (large checkpoints on a CPU)
};

/// Rule: 16-bit products only where the device has units for them (any GPU; CPUs with AVX512-BF16 or
/// AMX-BF16, bfloat16 only), else float32 products. Checkpoints above 4 GiB stay mapped when the CPU computes
/// in their own dtype; smaller ones are copied, which allows q|k|v and gate|up to be one product each.
WeightPolicy choose_policy(const std::string& dtype, at::Device, const Checkpoint&,
                           const std::string& config_dtype);

/// True on CPUs with AVX512-BF16 or AMX-BF16.
bool cpu_has_bfloat16();

/// One tensor of the checkpoint under the policy. Throws InputError when it is missing, misshaped, or holds
/// NaN or infinity (the tensor and its file are named).
at::Tensor load_weight(const Checkpoint&, const std::string& name, const std::vector<int64_t>& shape,
                       const WeightPolicy&);

/// y = x W^T + b with several matrices side by side: one product when they were copied together, one each
/// when they stay mapped.
class Linear {
 public:
  /// names: "model.layers.0.self_attn.q_proj", ...; rows[i] x cols each.
  Linear(const Checkpoint&, const std::vector<std::string>& names, const std::vector<int64_t>& rows,
         int64_t cols, bool bias, const WeightPolicy&);
  Linear() = default;
  /// x [m, cols] -> [m, sum of rows] in the stored dtype.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  std::vector<at::Tensor> weights_, biases_;
  WeightPolicy policy_;
};

}  // namespace prefill
