// cpu-ref: the oracle as a backend. Every feature, every length, double sums, no speed.
#include <ATen/ATen.h>

#include "kernels/adapters/views.h"

namespace prefill {
namespace {

class CpuRefBackend final : public KernelBackend {
 public:
  std::string name() const override { return "cpu-ref"; }
  std::string kernel_name(const Qkv&, const AttentionPlan&) const override { return "reference-f64"; }
  at::Device device() const override { return at::kCPU; }

  Support supports(const Qkv& a, const AttentionPlan& p) const override {
    std::string why = adapters::wrong_with(a, at::kCPU);
    if (why.empty()) why = adapters::wrong_with(p, a);
    return {why.empty(), why};
  }

  AttendResult attend(const Qkv& a, const AttentionPlan& p, AttendOptions options) const override {
    adapters::Outputs out(a, p, options, adapters::Outputs::result);
    compute(a, p, out);
    return std::move(out.tensors);
  }

  PartialSoftmax attend_partial(const Qkv& a, const AttentionPlan& p) const override {
    adapters::Outputs out(a, p, {}, adapters::Outputs::state);
    compute(a, p, out);
    return std::move(out.softmax);
  }

 private:
  void compute(const Qkv& a, const AttentionPlan& p, const adapters::Outputs& out) const {
    if (const Support s = supports(a, p); !s) throw Unsupported(name() + ": " + s.why);
    const adapters::PlanArgs plan(p, a);
    adapters::raise_on(kernels::attend_reference(adapters::view(a), plan.view, out.view), name());
  }
};

const RegisterBackend cpu_ref_entry({.name = "cpu-ref",
                                  .doc = "oracle: plain loops with double sums, one thread, every feature",
                                  .file = __FILE__,
                                  .available = [] { return Support{}; },
                                  .make = [] { return std::make_unique<CpuRefBackend>(); }});

}  // namespace
}  // namespace prefill
