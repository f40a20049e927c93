// Sums over the processes of one host through shared memory. LibTorch's wheel carries Gloo's code without its
// headers, so c10d's Gloo group can not be made from C++.
#include "core/model/communicator.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

constexpr int kMostRanks = 64;
constexpr int64_t kSlot = 4 << 20;  // bytes of a rank's slot; longer tensors go in pieces

/// What the ranks share. A new file is all zeros, which is its right initial state.
struct Board {
  /// How many steps each rank has reached. Of no use across processes if it took a lock.
  std::atomic<int64_t> reached[kMostRanks];
  static_assert(std::atomic<int64_t>::is_always_lock_free);
};
constexpr int64_t kBoard = (int64_t(sizeof(Board)) + 4095) / 4096 * 4096;

class SharedMemory final : public Communicator {
 public:
  explicit SharedMemory(const Meeting& m) : Communicator(m), timeout_(m.timeout) {
    if (m.size > kMostRanks)
      throw Unsupported(str("at most ", kMostRanks, " ranks can share a model on CPUs"));
    const std::string file = m.folder + "/sums";
    const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bytes_ = size_t(kBoard + kSlot * m.size);
    // Every rank makes the file as long; the first one's zeros stay.
    if (fd < 0 || ::ftruncate(fd, off_t(bytes_)) != 0)
      throw std::runtime_error(str(file, ": can not be made: ", std::strerror(errno)));
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    if (memory_ == MAP_FAILED)
      throw std::runtime_error(str(file, ": can not be mapped: ", std::strerror(errno)));
    meet();
  }
  ~SharedMemory() override { ::munmap(memory_, bytes_); }

 private:
  Board& board() const { return *static_cast<Board*>(memory_); }
  char* slot(int rank) const { return static_cast<char*>(memory_) + kBoard + kSlot * rank; }

  /// Waits until every rank has come as far.
  void meet() {
    board().reached[rank()].store(++step_, std::memory_order_release);
    const auto deadline = std::chrono::steady_clock::now() + timeout_;
    for (int other = 0; other < size(); ++other)
      for (int64_t tries = 0; board().reached[other].load(std::memory_order_acquire) < step_; ++tries) {
        if (tries < 2000) continue;
        std::this_thread::sleep_for(std::chrono::microseconds(tries < 4000 ? 1 : 50));
        if (std::chrono::steady_clock::now() > deadline)
          throw std::runtime_error(str("rank ", other, " did not come within ", timeout_.count(), " s"));
      }
  }

  void sum(at::Tensor& x) override {
    const at::Tensor flat = x.view({-1});  // throws when it is not contiguous
    const int64_t most = kSlot / x.element_size();
    for (int64_t at = 0; at < flat.numel(); at += most) {
      const int64_t count = std::min(most, flat.numel() - at);
      at::Tensor piece = flat.narrow(0, at, count);
      const auto of = [&](int rank) { return at::from_blob(slot(rank), {count}, x.options()); };
      of(rank()).copy_(piece);
      meet();
      // every rank adds in the same order, so all get the same bits
      piece.copy_(of(0));
      for (int other = 1; other < size(); ++other) piece.add_(of(other));
      meet();  // before a slot is written again
    }
  }

  std::chrono::seconds timeout_;
  size_t bytes_ = 0;
  void* memory_ = MAP_FAILED;
  int64_t step_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> join_ranks(const Meeting& m, at::Device device) {
  if (device.is_cpu()) return std::make_unique<SharedMemory>(m);
  if (!cuda_ranks())
    throw Unsupported(
        "this build has no NCCL (its header was not found when it was configured), so a model can not be "
        "shared by "
        "several GPUs");
  return cuda_ranks()(m);
}

}  // namespace prefill
