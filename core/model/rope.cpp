#include "core/model/rope.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace prefill {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// arange(0, dim, 2) / dim, float32.
at::Tensor exponents(int64_t dim) { return at::arange(0, dim, 2, at::kLong).to(at::kFloat) / double(dim); }

at::Tensor llama3(const at::Tensor& inv, const RopeConfig& c) {
  const double old = double(c.original_max), low = old / c.low_freq_factor, high = old / c.high_freq_factor;
  const at::Tensor wavelength = 2 * kPi / inv;
  const at::Tensor scaled = at::where(wavelength > low, inv / c.factor, inv);
  const at::Tensor smooth = (old / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
  const at::Tensor ramp = (1 - smooth) * scaled / c.factor + smooth * scaled;
  return at::where((wavelength >= high).logical_and(wavelength <= low), ramp, scaled);
}

at::Tensor yarn(const at::Tensor& pos_freqs, const RopeConfig& c, int64_t dim) {
  // the dimension that turns `rotations` times over the original context
  const auto dimension = [&](double rotations) {
    return double(dim) * std::log(double(c.original_max) / (rotations * 2 * kPi)) / (2 * std::log(c.theta));
  };
  double low = dimension(c.beta_fast), high = dimension(c.beta_slow);
  if (c.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, double(dim - 1));
  if (low == high) high += 0.001;
  const at::Tensor ramp = ((at::arange(dim / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor keep = 1 - ramp;  // 1: extrapolate (high frequency), 0: interpolate
  return 1.0 / (c.factor * pos_freqs) * (1 - keep) + 1.0 / pos_freqs * keep;
}

double yarn_attention_factor(const RopeConfig& c) {
  if (c.attention_factor >= 0) return c.attention_factor;
  const auto magnitude = [&](double m) { return c.factor <= 1 ? 1.0 : 0.1 * m * std::log(c.factor) + 1.0; };
  return c.mscale != 0 && c.mscale_all_dim != 0 ? magnitude(c.mscale) / magnitude(c.mscale_all_dim)
                                                : magnitude(1);
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& config, int64_t head_dim, int64_t max_positions, at::Device device)
    : config_(config), head_dim_(head_dim), max_positions_(max_positions), device_(device) {
  if (config.type == "yarn") attention_factor_ = yarn_attention_factor(config);
}

at::Tensor RopeTable::inverse_frequencies(int64_t seq_len) const {
  const auto powers = [&](double base) { return at::pow(base, exponents(head_dim_)); };
  if (config_.type == "dynamic") {
    const double n = double(std::max(seq_len, max_positions_)), dim = double(head_dim_);
    const double stretch = config_.factor * n / double(max_positions_) - (config_.factor - 1);
    return 1.0 / powers(config_.theta * std::pow(stretch, dim / (dim - 2)));
  }
  if (config_.type == "yarn") return yarn(powers(config_.theta), config_, head_dim_);
  const at::Tensor inv = 1.0 / powers(config_.theta);
  if (config_.type == "linear") return inv / config_.factor;
  if (config_.type == "llama3") return llama3(inv, config_);
  return inv;
}

std::pair<at::Tensor, at::Tensor> RopeTable::rows(int64_t begin, int64_t end) {
  const bool dynamic = config_.type == "dynamic";
  const int64_t wanted = dynamic ? std::max(end, max_positions_) : 0;
  const int64_t have = cos_.defined() ? cos_.size(0) : 0;
  if (have < end || wanted != dynamic_length_) {
    dynamic_length_ = wanted;
    const int64_t rows = std::max(end, have + (have < end ? 256 : 0));
    const at::Tensor angle = at::outer(at::arange(rows, at::kLong).to(at::kFloat), inverse_frequencies(end));
    cos_ = (angle.cos() * attention_factor_).to(device_);
    sin_ = (angle.sin() * attention_factor_).to(device_);
  }
  return {cos_.slice(0, begin, end), sin_.slice(0, begin, end)};
}

void apply_rope(at::Tensor x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  at::Tensor low = x.slice(2, 0, half), high = x.slice(2, half);
  const at::Tensor a = low.to(at::kFloat, false, /*copy=*/true), b = high.to(at::kFloat);
  if (x.scalar_type() == at::kFloat) {
    low.mul_(c).addcmul_(b, s, -1);
    high.mul_(c).addcmul_(a, s);
  } else {
    low.copy_(a * c - b * s);
    high.copy_(b * c + a * s);
  }
}

}  // namespace prefill
