// cpu: the fast kernels of kernels/cpu as a backend.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kernels/adapters/views.h"

namespace prefill {
namespace {

class CpuBackend final : public KernelBackend {
 public:
  std::string name() const override { return "cpu"; }

  std::string kernel_name(const Qkv& a, const AttentionPlan&) const override {
    const auto type = adapters::view(a).dtype;
    const std::string isa = kernels::attend_cpu_isa(type);
    if (isa.find('-') != std::string::npos) return isa;  // "amx-bf16" names its dtype
    return isa + (type == kernels::Dtype::f32 ? "-f32" : type == kernels::Dtype::bf16 ? "-bf16" : "-f16");
  }

  at::Device device() const override { return at::kCPU; }

  Support supports(const Qkv& a, const AttentionPlan& p) const override {
    std::string why = adapters::wrong_with(a, at::kCPU);
    if (why.empty()) why = adapters::wrong_with(p, a);
    if (why.empty() && (a.head_dim() % 8 || a.head_dim() > 1024))
      why = str("head_dim ", a.head_dim(), " (multiples of 8 up to 1024 are computed; cpu-ref computes any)");
    return {why.empty(), why};
  }

  AttendResult attend(const Qkv& a, const AttentionPlan& p, AttendOptions options) const override {
    require(a, p);
    adapters::Outputs out(a, p, options, adapters::Outputs::result);
    compute(a, p, out);
    return std::move(out.tensors);
  }

  PartialSoftmax attend_partial(const Qkv& a, const AttentionPlan& p) const override {
    require(a, p);
    adapters::Outputs out(a, p, {}, adapters::Outputs::state);
    compute(a, p, out);
    return std::move(out.softmax);
  }

  at::Tensor pool_mean(const at::Tensor& x, int tile) const override {
    const auto type = x.scalar_type();
    const bool known = type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
    if (!known || x.dim() != 3 || x.numel() == 0 || x.stride(2) != 1 || tile < 1 || !x.device().is_cpu())
      return KernelBackend::pool_mean(x, tile);
    const auto out = at::empty({x.size(0), (x.size(1) + tile - 1) / tile, x.size(2)}, x.options().dtype(at::kFloat));
    const auto dtype = type == at::kFloat  ? kernels::Dtype::f32
                       : type == at::kHalf ? kernels::Dtype::f16
                                           : kernels::Dtype::bf16;
    adapters::raise_on(kernels::pool_mean_cpu(x.data_ptr(), dtype, int(x.size(0)), x.size(1), int(x.size(2)),
                                              x.stride(0), x.stride(1), tile, out.data_ptr<float>(),
                                              at::get_num_threads()),
                       name());
    return out;
  }

  at::Tensor tail_probs(const Qkv& a, int64_t tail) const override {
    if (!fast_tail(a, tail)) return KernelBackend::tail_probs(a, tail);
    const auto out =
        at::empty({a.q_heads(), std::min(tail, a.seq_len()), a.seq_len()}, a.q.options().dtype(at::kFloat));
    adapters::raise_on(kernels::tail_probs_cpu(adapters::view(a), tail, out.data_ptr<float>(), nullptr, nullptr,
                                               at::get_num_threads()),
                       name());
    return out;
  }

  std::pair<at::Tensor, at::Tensor> tail_sums(const Qkv& a, int64_t tail) const override {
    if (!fast_tail(a, tail)) return KernelBackend::tail_sums(a, tail);
    const auto vertical = at::empty({a.q_heads(), a.seq_len()}, a.q.options().dtype(at::kFloat));
    const auto slash = at::empty_like(vertical);
    adapters::raise_on(kernels::tail_probs_cpu(adapters::view(a), tail, nullptr, vertical.data_ptr<float>(),
                                               slash.data_ptr<float>(), at::get_num_threads()),
                       name());
    return {vertical, slash};
  }

 private:
  static bool fast_tail(const Qkv& a, int64_t tail) {
    return tail >= 1 && a.head_dim() % 8 == 0 && adapters::wrong_with(a, at::kCPU).empty();
  }

  void require(const Qkv& a, const AttentionPlan& p) const {
    if (const Support s = supports(a, p); !s) throw Unsupported(name() + ": " + s.why);
  }

  void compute(const Qkv& a, const AttentionPlan& p, const adapters::Outputs& out) const {
    const adapters::PlanArgs plan(p, a);
    adapters::raise_on(kernels::attend_cpu(adapters::view(a), plan.view, out.view, at::get_num_threads()), name());
  }
};

const RegisterBackend cpu_entry({.name = "cpu",
                                  .doc = "own kernels for AVX2, AVX-512 and AMX, chosen at run time; every feature",
                                  .file = __FILE__,
                                  .available = [] { return Support{}; },
                                  .make = [] { return std::make_unique<CpuBackend>(); }});

}  // namespace
}  // namespace prefill
