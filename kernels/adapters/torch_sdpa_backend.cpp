// torch-sdpa: LibTorch's scaled_dot_product_attention, dense plans only. The second opinion and the baseline.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "kernels/adapters/views.h"

namespace prefill {
namespace {

/// The host's clock around stages that wait for the device at both ends. This file is built without CUDA, too, and
/// does without its events; the wait costs microseconds of a dense attention.
class WaitingClock final : public StageClock {
 public:
  explicit WaitingClock(const KernelBackend& backend) : backend_(backend), clock_(make_cpu_clock()) {}
  void begin(Stage stage, int layer) override {
    backend_.synchronize();
    clock_->begin(stage, layer);
  }
  void end() override {
    backend_.synchronize();
    clock_->end();
  }
  std::array<double, kStages> seconds() override { return clock_->seconds(); }
  void reset() override { clock_->reset(); }

 private:
  const KernelBackend& backend_;
  std::unique_ptr<StageClock> clock_;
};

class TorchSdpaBackend final : public KernelBackend {
 public:
  TorchSdpaBackend(std::string name, at::Device device) : name_(std::move(name)), device_(device) {}
  std::string name() const override { return name_; }
  at::Device device() const override { return device_; }
  void synchronize() const override {
    if (device_.is_cuda()) at::detail::getCUDAHooks().deviceSynchronize(device_.index());
  }
  std::unique_ptr<StageClock> make_clock() const override {
    if (device_.is_cuda()) return std::make_unique<WaitingClock>(*this);
    return make_cpu_clock();
  }

  std::string kernel_name(const Qkv& a, const AttentionPlan&) const override {
    // sdp::SDPBackend: 0 math, 1 flash, 2 efficient, 3 cudnn, 4 overridable
    static const char* const names[] = {"math", "flash", "efficient", "cudnn", "overridable"};
    const int64_t choice = at::_fused_sdp_choice(a.q.unsqueeze(0), a.k.unsqueeze(0), a.v.unsqueeze(0), {}, 0.0, true,
                                                 a.scale, a.q_heads() != a.kv_heads());
    return str("torch-sdpa-", choice >= 0 && choice < 5 ? names[choice] : "unknown");
  }

  Support supports(const Qkv& a, const AttentionPlan& p) const override {
    std::string why = adapters::wrong_with(a, device_.type());
    if (why.empty()) why = adapters::wrong_with(p, a);
    for (const Route& r : p.heads)
      if (why.empty() && r.kind != Route::dense) why = "only dense routes (ATen's SDPA knows no sparse plan)";
    for (uint8_t w : p.want_tile_mean)
      if (why.empty() && w) why = "no tile means";
    if (why.empty() && p.resume) why = "no resumed softmax";
    return {why.empty(), why};
  }

  AttendResult attend(const Qkv& a, const AttentionPlan& p, AttendOptions options) const override {
    if (const Support s = supports(a, p); !s) throw Unsupported(name_ + ": " + s.why);
    if (options.lse) throw Unsupported(name_ + ": no log-sum-exp");
    const auto out = at::scaled_dot_product_attention(a.q.unsqueeze(0), a.k.unsqueeze(0), a.v.unsqueeze(0), {}, 0.0,
                                                      true, a.scale, a.q_heads() != a.kv_heads());
    return {out.squeeze(0), {}, {}};
  }

 private:
  std::string name_;
  at::Device device_;
};

const RegisterBackend registered_cpu({.name = "torch-sdpa",
                                      .doc = "LibTorch's SDPA on the CPU, dense plans only",
                                      .file = __FILE__,
                                      .available = [] { return Support{}; },
                                      .make = [] { return std::make_unique<TorchSdpaBackend>("torch-sdpa", at::kCPU); }});

const RegisterBackend registered_cuda(
    {.name = "torch-sdpa-cuda",
     .doc = "LibTorch's SDPA on the GPU (its own choice of cuDNN, FlashAttention-2, ...), dense plans only",
     .file = __FILE__,
     .available = [] {
       if (!at::hasCUDA()) return Support{false, "built without CUDA, or no CUDA device; build with the cuda preset"};
       return Support{};
     },
     .make = [] { return std::make_unique<TorchSdpaBackend>("torch-sdpa-cuda", at::Device(at::kCUDA, 0)); }});

}  // namespace
}  // namespace prefill
