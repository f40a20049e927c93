// Weights in the shape that the decoder multiplies with, and where they come from.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/model/checkpoint.h"
#include "core/model/shard.h"

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
/// Random checkpoints: normal numbers by seed and name, drawn on the device, with the deviation that keeps
/// the residual stream near 1 in any depth: 1/sqrt(columns) for matrices (1/8 of that for o and down), 1 for
/// the embedding; norms are 1 + 0.1 N, biases 0.1 N. Other draws on another kind of device.
at::Tensor load_weight(const Checkpoint&, const std::string& name, const std::vector<int64_t>& shape,
                       const WeightPolicy&);

/// A matrix of a Linear: its name ("model.layers.0.self_attn.q_proj"), its rows in the checkpoint, and those
/// that are kept here.
struct Part {
  std::string name;
  int64_t rows = 0;
  Range kept;
};

/// y = x W^T + b with several matrices side by side: one product when they were copied together, one each
/// when they stay mapped.
class Linear {
 public:
  /// Matrices of `cols` columns in the checkpoint, of which `kept` stay.
  Linear(const Checkpoint&, const std::vector<Part>&, int64_t cols, Range kept, bool bias,
         const WeightPolicy&);
  Linear() = default;
  /// x [m, kept columns] -> [m, sum of kept rows] in the stored dtype, contiguous.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  std::vector<at::Tensor> weights_, biases_;
  WeightPolicy policy_;
};

}  // namespace prefill
