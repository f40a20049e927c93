// Ranks on GPUs: c10d's NCCL group. The one file that sees c10d's headers; compiled where nccl.h is
// (scripts/cmake/LibTorch.cmake).
#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/communicator.h"

namespace prefill {
namespace {

class NcclRanks final : public Communicator {
 public:
  explicit NcclRanks(const Meeting& m) : Communicator(m) {
    auto store = c10::make_intrusive<c10d::FileStore>(m.folder + "/store", m.size);
    store->setTimeout(m.timeout);
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = m.timeout;
    group_ = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, m.rank, m.size, options);
    // the group connects with its first sum: now, and not inside a measurement
    at::Tensor one =
        at::ones({1}, at::TensorOptions().dtype(at::kFloat).device(at::kCUDA, c10::cuda::current_device()));
    sum(one);
    if (const float ranks = one.item<float>(); ranks != float(m.size))
      throw std::runtime_error(str("NCCL added up ", ranks, " ranks, not ", m.size));
  }
  ~NcclRanks() override {
    try {
      if (!abandoned_) group_->shutdown();
    } catch (const std::exception&) {  // the other end may be gone
    }
  }
  void abandon() override {
    abandoned_ = true;
    group_->abort();
  }

 private:
  void sum(at::Tensor& x) override {
    std::vector<at::Tensor> tensors{x};
    group_->allreduce(tensors)->wait();  // the current stream waits, not the host
  }

  c10::intrusive_ptr<c10d::ProcessGroupNCCL> group_;
  bool abandoned_ = false;
};

const bool registered = [] {
  cuda_ranks() = [](const Meeting& m) -> std::unique_ptr<Communicator> {
    return std::make_unique<NcclRanks>(m);
  };
  return true;
}();

}  // namespace
}  // namespace prefill
