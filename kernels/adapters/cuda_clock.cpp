#include "kernels/adapters/cuda_clock.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <vector>

namespace prefill::adapters {
namespace {

class CudaClock final : public StageClock {
 public:
  ~CudaClock() override {
    for (const Span& s : spans_) cudaEventDestroy(s.begin), cudaEventDestroy(s.end);
  }

  void begin(Stage stage, int) override {
    if (open_) throw std::logic_error("stages do not nest");
    if (used_ == spans_.size()) {  // the pool grows to the stages of one prompt and is used again after reset()
      Span s{};
      C10_CUDA_CHECK(cudaEventCreate(&s.begin));
      C10_CUDA_CHECK(cudaEventCreate(&s.end));
      spans_.push_back(s);
    }
    spans_[used_].stage = stage;
    C10_CUDA_CHECK(cudaEventRecord(spans_[used_].begin, c10::cuda::getCurrentCUDAStream()));
    open_ = true;
  }

  void end() override {
    if (!open_) throw std::logic_error("no stage has begun");
    C10_CUDA_CHECK(cudaEventRecord(spans_[used_++].end, c10::cuda::getCurrentCUDAStream()));
    open_ = false;
  }

  std::array<double, kStages> seconds() override {
    for (; added_ < used_; ++added_) {
      float ms = 0;
      C10_CUDA_CHECK(cudaEventSynchronize(spans_[added_].end));
      C10_CUDA_CHECK(cudaEventElapsedTime(&ms, spans_[added_].begin, spans_[added_].end));
      sums_[size_t(spans_[added_].stage)] += 1e-3 * ms;
    }
    return sums_;
  }

  void reset() override {
    used_ = added_ = 0;
    open_ = false;
    sums_ = {};
  }

 private:
  struct Span {
    cudaEvent_t begin, end;
    Stage stage;
  };
  std::vector<Span> spans_;
  size_t used_ = 0, added_ = 0;
  bool open_ = false;
  std::array<double, kStages> sums_{};
};

}  // namespace

std::unique_ptr<StageClock> make_cuda_clock() { return std::make_unique<CudaClock>(); }

}  // namespace prefill::adapters
