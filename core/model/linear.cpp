#include "core/model/linear.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <cmath>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/text.h"

namespace prefill {
namespace {

constexpr uint64_t kMapAbove = 4ull << 30;

/// A stream of its own for every tensor, so that a rank can draw its part without the others.
at::Tensor draw(const std::string& name, const std::vector<int64_t>& shape, int64_t seed, at::Device device) {
  at::Generator random = at::globalContext().defaultGenerator(device).clone();
  random.set_current_seed(std::stoull(sha256_hex(str(seed, " ", name)).substr(0, 13), nullptr, 16));
  at::Tensor x = at::randn(shape, random, at::TensorOptions().dtype(at::kFloat).device(device));
  if (name.ends_with("norm.weight")) return x.mul_(0.1).add_(1);
  if (name.ends_with(".bias")) return x.mul_(0.1);
  if (name.ends_with("embed_tokens.weight")) return x;
  const bool output = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
  return x.mul_((output ? 0.125 : 1.0) / std::sqrt(double(shape[1])));
}

/// The kept rows (and columns, of a matrix) of a tensor.
at::Tensor read_checked(const Checkpoint& c, const std::string& name, const std::vector<int64_t>& shape,
                        Range rows, Range cols, const WeightPolicy& p) {
  at::Tensor view = c.is_random() ? draw(name, shape, c.seed(), p.device) : c.tensor(name, shape);
  view = view.narrow(0, rows.begin, rows.size());
  if (shape.size() > 1) view = view.narrow(1, cols.begin, cols.size());
  if (!c.is_random()) refuse_not_finite(view, name, c.file_of(name));
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
  const at::Tensor view = read_checked(c, name, shape, {0, shape[0]}, {0, shape.back()}, p);
  return view.to(p.device, p.stored, /*non_blocking=*/false, /*copy=*/!p.map);
}

Linear::Linear(const Checkpoint& c, const std::vector<Part>& matrices, int64_t cols, Range kept, bool bias,
               const WeightPolicy& p)
    : policy_(p) {
  const auto weight = [&](const Part& m) {
    return read_checked(c, m.name + ".weight", {m.rows, cols}, m.kept, kept, p);
  };
  const auto bias_of = [&](const Part& m) {
    return read_checked(c, m.name + ".bias", {m.rows}, m.kept, {}, p);
  };
  if (p.map) {
    for (const Part& m : matrices) {
      weights_.push_back(weight(m).to(p.device, p.stored));
      if (bias) biases_.push_back(bias_of(m).to(p.device, p.stored));
    }
    return;
  }
  int64_t total = 0;
  for (const Part& m : matrices) total += m.kept.size();
  const auto options = at::TensorOptions().dtype(p.stored).device(p.device);
  weights_.push_back(at::empty({total, kept.size()}, options));
  if (bias) biases_.push_back(at::empty({total}, options));
  int64_t at = 0;
  for (const Part& m : matrices) {
    weights_[0].narrow(0, at, m.kept.size()).copy_(weight(m));
    if (bias) biases_[0].narrow(0, at, m.kept.size()).copy_(bias_of(m));
    at += m.kept.size();
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
