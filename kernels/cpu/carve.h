// One block of scratch memory handed out in 64-byte aligned pieces, or only counted (base null).
#pragma once
#include "kernels/cpu/scalar.h"

namespace prefill::kernels::cpu {
namespace {

class Carve {
 public:
  explicit Carve(void* base) : base_(static_cast<char*>(base)) {}
  float* floats(int64_t n) {
    char* at = base_ ? base_ + used_ : nullptr;
    used_ += round_up(n * 4, 64);
    return reinterpret_cast<float*>(at);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace
}  // namespace prefill::kernels::cpu
