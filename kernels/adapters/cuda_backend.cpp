// cuda: the kernels of kernels/cuda as a backend.
#include <ATen/ATen.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "kernels/adapters/cuda_clock.h"
#include "kernels/adapters/views.h"

namespace prefill {
namespace {

cudaDeviceProp properties(int device) {
  cudaDeviceProp prop{};
  if (cudaGetDeviceProperties(&prop, device) != cudaSuccess) throw DeviceLost("cuda: no answer from the device");
  return prop;
}

class CudaBackend final : public KernelBackend {
 public:
  std::string name() const override { return "cuda"; }
  at::Device device() const override { return at::Device(at::kCUDA, c10::cuda::current_device()); }

  std::string kernel_name(const Qkv& a, const AttentionPlan&) const override {
    return str(kernels::attend_cuda_isa(), "-", a.q.scalar_type() == at::kHalf ? "f16" : "bf16");
  }

  Support supports(const Qkv& a, const AttentionPlan& p) const override {
    std::string why = adapters::wrong_with(a, at::kCUDA);
    if (why.empty()) why = adapters::wrong_with(p, a);
    if (why.empty()) {
      const adapters::PlanArgs plan(p, a);
      kernels::OutView out{};
      std::vector<uint8_t> want = p.want_tile_mean;
      if (!want.empty()) out.want_tile_mean = want.data();
      const kernels::Result r = kernels::attend_cuda_supports(adapters::view(a), plan.view, out);
      if (r.status != kernels::Status::ok) why = r.why;
    }
    return {why.empty(), why};
  }

  AttendResult attend(const Qkv& a, const AttentionPlan& p, AttendOptions options) const override {
    require(a, p);
    const c10::cuda::CUDAGuard guard(a.q.device());
    bool means = false;
    for (uint8_t w : p.want_tile_mean) means = means || w;
    adapters::Outputs out(a, p, {.lse = options.lse || means}, adapters::Outputs::result);  // means need the lse
    compute(a, p, out);
    if (!options.lse) out.tensors.lse = at::Tensor();
    return std::move(out.tensors);
  }

  PartialSoftmax attend_partial(const Qkv& a, const AttentionPlan& p) const override {
    require(a, p);
    const c10::cuda::CUDAGuard guard(a.q.device());
    adapters::Outputs out(a, p, {}, adapters::Outputs::state);
    compute(a, p, out);
    return std::move(out.softmax);
  }

  at::Tensor pool_mean(const at::Tensor& x, int tile) const override {
    const auto type = x.scalar_type();
    const bool known = type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
    if (!known || x.dim() != 3 || x.numel() == 0 || x.stride(2) != 1 || tile < 1 || !x.is_cuda())
      return KernelBackend::pool_mean(x, tile);
    const c10::cuda::CUDAGuard guard(x.device());
    const auto out = at::empty({x.size(0), (x.size(1) + tile - 1) / tile, x.size(2)}, x.options().dtype(at::kFloat));
    const auto dtype = type == at::kFloat  ? kernels::Dtype::f32
                       : type == at::kHalf ? kernels::Dtype::f16
                                           : kernels::Dtype::bf16;
    adapters::raise_on(kernels::pool_mean_cuda(x.data_ptr(), dtype, int(x.size(0)), x.size(1), int(x.size(2)), x.stride(0),
                                               x.stride(1), tile, out.data_ptr<float>(), stream(x)),
                       name());
    return out;
  }

  std::pair<at::Tensor, at::Tensor> tail_sums(const Qkv& a, int64_t tail) const override {
    const bool aligned = reinterpret_cast<uintptr_t>(a.q.data_ptr()) % 16 == 0 && reinterpret_cast<uintptr_t>(a.k.data_ptr()) % 16 == 0 &&
                         a.q.stride(0) % 8 == 0 && a.q.stride(1) % 8 == 0 && a.k.stride(0) % 8 == 0 && a.k.stride(1) % 8 == 0;
    if (!aligned || tail < 1 || a.q.scalar_type() == at::kFloat || (a.head_dim() != 64 && a.head_dim() != 128) ||
        !adapters::wrong_with(a, at::kCUDA).empty())
      return KernelBackend::tail_sums(a, tail);
    const c10::cuda::CUDAGuard guard(a.q.device());
    const auto f32 = a.q.options().dtype(at::kFloat);
    const auto vertical = at::empty({a.q_heads(), a.seq_len()}, f32), slash = at::empty_like(vertical);
    const kernels::QkvView qkv = adapters::view(a);
    const auto workspace = at::empty({int64_t(kernels::tail_sums_cuda_workspace(qkv, tail))}, f32.dtype(at::kByte));
    adapters::raise_on(kernels::tail_sums_cuda(qkv, tail, vertical.data_ptr<float>(), slash.data_ptr<float>(),
                                               workspace.data_ptr(), stream(a.q)),
                       name());
    return {vertical, slash};
  }

  std::unique_ptr<StageClock> make_clock() const override { return adapters::make_cuda_clock(); }
  void synchronize() const override { c10::cuda::device_synchronize(); }
  int64_t peak_bytes() const override {
    using c10::CachingAllocator::StatType;
    return c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device())
        .allocated_bytes[size_t(StatType::AGGREGATE)]
        .peak;
  }
  void reset_peak() const override { c10::cuda::CUDACachingAllocator::resetPeakStats(c10::cuda::current_device()); }
  std::string hardware() const override { return properties(c10::cuda::current_device()).name; }

 private:
  void require(const Qkv& a, const AttentionPlan& p) const {
    if (const Support s = supports(a, p); !s) throw Unsupported(name() + ": " + s.why);
  }

  static void* stream(const at::Tensor& t) { return c10::cuda::getCurrentCUDAStream(t.device().index()).stream(); }

  static void compute(const Qkv& a, const AttentionPlan& p, const adapters::Outputs& out) {
    const adapters::PlanArgs plan(p, a);
    const kernels::QkvView qkv = adapters::view(a);
    const auto bytes = int64_t(kernels::attend_cuda_workspace(qkv, plan.view, out.view));
    const at::Tensor workspace = at::empty({bytes}, a.q.options().dtype(at::kByte));
    adapters::raise_on(kernels::attend_cuda(qkv, plan.view, out.view, workspace.data_ptr(), stream(a.q)),
                       "cuda");
  }
};

Support available() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
    return {false, "no CUDA device; the cpu backend computes the same plans"};
  const cudaDeviceProp prop = properties(0);
  if (prop.major < 8) return {false, str(prop.name, " is older than Ampere (compute capability 8.0)")};
  return {};
}

const RegisterBackend cuda_entry({.name = "cuda",
                                  .doc = "own kernels for NVIDIA GPUs: TMA and WGMMA on Hopper, mma.sync from Ampere on; every feature",
                                  .file = __FILE__,
                                  .available = available,
                                  .make = [] { return std::make_unique<CudaBackend>(); }});

}  // namespace
}  // namespace prefill
