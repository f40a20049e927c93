// The ranks of one model: processes of one host that each hold a part of the weights and add up what they
// computed.
#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace prefill {

/// Where ranks meet.
struct Meeting {
  std::string folder;  ///< the same for all ranks, and empty before the first of them comes
  int rank = 0, size = 1;
  std::chrono::seconds timeout{600};  ///< for a rank that does not come, at the start and in every sum
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  int rank() const { return rank_; }
  int size() const { return size_; }

  /// Sum over the ranks, in place. Contiguous, on this rank's device; every rank calls it with the same shape
  /// and dtype, in the same order, and gets the same bits. Throws std::runtime_error when a rank does not
  /// come in time.
  void all_reduce(at::Tensor& x) {
    ++sums_;
    sum(x);
  }
  /// Leaves without the others, which may be gone: nothing may wait for them any more. Only destruction may
  /// follow.
  virtual void abandon() {}
  /// How many sums were begun: ranks that differ here can not go on together.
  int64_t sums() const { return sums_; }

 protected:
  explicit Communicator(const Meeting& m) : rank_(m.rank), size_(m.size) {}
  virtual void sum(at::Tensor&) = 0;

 private:
  int rank_, size_;
  int64_t sums_ = 0;
};

/// Joins the other ranks, which must call it, too. CPU: memory that the processes share. CUDA: NCCL, through
/// LibTorch's c10d; the current device must be this rank's. Throws Unsupported where the build has no NCCL.
std::unique_ptr<Communicator> join_ranks(const Meeting&, at::Device);

/// Of CUDA tensors; the device's adapter sets it before main, and in a build without NCCL it stays null.
using JoinRanks = std::unique_ptr<Communicator> (*)(const Meeting&);
inline JoinRanks& cuda_ranks() {
  static JoinRanks join = nullptr;
  return join;
}

}  // namespace prefill
