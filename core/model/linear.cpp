#include "core/model/linear.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

constexpr uint64_t kMapAbove = 4ull << 30;

/// Minimum and maximum take NaN along, so one pass finds NaN and infinity alike.
void check_finite(const at::Tensor& view, const std::string& name, const std::string& file) {
  if (view.numel() == 0) return;
  const auto [low, high] = at::aminmax(view);
  const double lo = low.item().toDouble(), hi = high.item().toDouble();
  if (std::isnan(lo) || std::isnan(hi)) throw InputError(str(file, ": tensor '", name, "' holds NaN"));
  if (std::isinf(lo) || std::isinf(hi)) throw InputError(str(file, ": tensor '", name, "' holds infinity"));
}

at::Tensor read_checked(const Checkpoint& c, const std::string& name, const std::vector<int64_t>& shape) {
  at::Tensor view = c.tensor(name, shape);
  check_finite(view, name, c.file_of(name));
  return view;
}

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  throw InputError(str("dtype '", name, "' is not known; expected auto, float32, bfloat16 or float16"));
}

}  // namespace

bool cpu_has_bfloat16() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");  // every CPU with AMX-BF16 has it, too
#else
  return false;
#endif
}

WeightPolicy choose_policy(const std::string& dtype, at::Device device, const Checkpoint& c,
                           const std::string& config_dtype) {
  WeightPolicy p;
  p.device = device;
  if (dtype == "auto") {
    if (device.is_cpu())
      p.compute = cpu_has_bfloat16() ? at::kBFloat16 : at::kFloat;
    else
      p.compute = config_dtype == "float16" ? at::kHalf : at::kBFloat16;
  } else {
    p.compute = parse_dtype(dtype);
  }
  const bool native =
      !device.is_cpu() || p.compute == at::kFloat || (p.compute == at::kBFloat16 && cpu_has_bfloat16());
  p.stored = native ? p.compute : at::kFloat;
  p.map = device.is_cpu() && c.data_bytes() > kMapAbove;
  return p;
}

at::Tensor load_weight(const Checkpoint& c, const std::string& name, const std::vector<int64_t>& shape,
                       const WeightPolicy& p) {
  const at::Tensor view = read_checked(c, name, shape);
  return view.to(p.device, p.stored, /*non_blocking=*/false, /*copy=*/!p.map);
}

Linear::Linear(const Checkpoint& c, const std::vector<std::string>& names, const std::vector<int64_t>& rows,
               int64_t cols, bool bias, const WeightPolicy& p)
    : policy_(p) {
  if (p.map) {
    for (size_t i = 0; i < names.size(); ++i) {
      weights_.push_back(load_weight(c, names[i] + ".weight", {rows[i], cols}, p));
      if (bias) biases_.push_back(load_weight(c, names[i] + ".bias", {rows[i]}, p));
    }
    return;
  }
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t(0));
  const auto options = at::TensorOptions().dtype(p.stored).device(p.device);
  weights_.push_back(at::empty({total, cols}, options));
  if (bias) biases_.push_back(at::empty({total}, options));
  for (size_t i = 0, at = 0; i < names.size(); at += size_t(rows[i]), ++i) {
    weights_[0].narrow(0, int64_t(at), rows[i]).copy_(read_checked(c, names[i] + ".weight", {rows[i], cols}));
    if (bias)
      biases_[0].narrow(0, int64_t(at), rows[i]).copy_(read_checked(c, names[i] + ".bias", {rows[i]}));
  }
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  const at::Tensor in = x.to(policy_.stored);
  const auto part = [&](size_t i) {
    return at::linear(in, weights_[i], biases_.empty() ? std::optional<at::Tensor>() : biases_[i]);
  };
  if (weights_.size() == 1) return part(0);
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < weights_.size(); ++i) parts.push_back(part(i));
  return at::cat(parts, 1);
}

}  // namespace prefill
