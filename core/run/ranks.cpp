#include "core/run/ranks.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <thread>

#include "core/base/channel.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/shard.h"

extern char** environ;

namespace prefill {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

using Steady = std::chrono::steady_clock;

/// How long this rank may take to notice by itself that another failed, or died, before the watcher ends the
/// program.
constexpr std::chrono::seconds kAfterError{20}, kAfterDeath{5};
constexpr std::chrono::seconds kStart{120}, kLoad{1800}, kReply{600}, kEnd{60};

std::string text_of(std::exception_ptr e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& known) {
    return known.what();
  } catch (...) {
    return "an unknown error";
  }
}

std::string ending(int status) {
  if (WIFSIGNALED(status))
    return str("was ended by signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)), ")");
  return str("ended with exit code ", WEXITSTATUS(status));
}

/// A new folder: where memory is shared on a CPU, in memory.
std::string make_meeting_folder(at::Device device) {
  const fs::path in_memory = "/dev/shm";
  const bool use_memory = device.is_cpu() && ::access(in_memory.c_str(), W_OK) == 0;
  std::string pattern =
      ((use_memory ? in_memory : fs::temp_directory_path()) / "prefillbench-XXXXXX").string();
  if (!::mkdtemp(pattern.data()))
    throw std::runtime_error(str(pattern, ": can not be made: ", std::strerror(errno)));
  return pattern;
}

}  // namespace

void use_device(const KernelBackend& backend, int rank, int size) {
  if (backend.device().is_cpu()) return;
  const auto* guard = c10::impl::getDeviceGuardImpl(backend.device().type());
  if (int(guard->deviceCount()) < size)
    throw Unsupported(
        str(size, " ranks need ", size, " GPUs, this machine shows ", int(guard->deviceCount())));
  guard->setDevice(at::Device(backend.device().type(), at::DeviceIndex(rank)));
  if (backend.device().index() != rank)
    throw Unsupported(str("backend ", backend.name(), " computes on the first GPU only; take backend cuda"));
}

class Ranks::Impl {
 public:
  Impl(const RanksOptions& o, const KernelBackend& backend) : device_(backend.device()) {
    shard_of(read_model_config(o.model_folder), 0, o.size);  // throws before anything is started
    use_device(backend, 0, o.size);
    folder_ = make_meeting_folder(device_);
    wake_ = ::eventfd(0, EFD_CLOEXEC);
    peers_.resize(size_t(o.size) - 1);
    try {
      for (size_t i = 0; i < peers_.size(); ++i) start(i, o);
      watcher_ = std::thread([this] { watch(); });
      for (size_t i = 0; i < peers_.size(); ++i) expect(i, "here", kStart);
      communicator_ = join_ranks({folder_, 0, o.size}, backend.device());
    } catch (...) {
      end();
      throw;
    }
  }
  ~Impl() { end(); }

  int size() const { return int(peers_.size()) + 1; }
  Communicator& communicator() const { return *communicator_; }

  void wait_until_loaded() {
    for (size_t i = 0; i < peers_.size(); ++i) expect(i, "loaded", kLoad);
    if (device_.is_cpu()) remove_folder();  // mapped by all; NCCL looks into it to the end
  }

  /// Has all ranks compute: `compute` here, what `head` says there. A failure here that the others share, at
  /// the same point, is passed on; any other leaves the ranks apart and is DeviceLost.
  template <class F>
  auto together(const json& head, const std::vector<int32_t>& ids, bool answered, F compute) {
    settle();
    tell(head, ids);
    unanswered_ = answered;
    try {
      return compute();
    } catch (...) {
      const std::exception_ptr mine = std::current_exception();
      unanswered_ = false;
      for (size_t i = 0; i < peers_.size(); ++i) {
        const std::optional<Message> m = take(i, kAfterError);
        if (!m || m->head.at("sums").get<int64_t>() != communicator_->sums())
          lose(str("rank 0 failed and rank ", i + 1,
                   " did not, so they can not go on together: ", text_of(mine)));
      }
      std::rethrow_exception(mine);
    }
  }

  std::vector<PromptReport> reports(PromptReport own, bool whole) {
    settle();
    tell({{"op", "report"}, {"whole", whole}}, {});
    std::vector<PromptReport> all{std::move(own)};
    for (size_t i = 0; i < peers_.size(); ++i)
      all.push_back(prompt_report(answer(i, kReply).head.at("report")));
    return all;
  }

 private:
  struct Peer {
    pid_t pid = -1;
    std::unique_ptr<Channel> channel;
    std::deque<Message> inbox;
    bool gone = false;
    std::string how;  ///< it went
  };

  void start(size_t i, const RanksOptions& o) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      throw std::runtime_error(str("no socket for rank ", i + 1, ": ", std::strerror(errno)));
    Peer& peer = peers_[i];
    peer.channel = std::make_unique<Channel>(ends[0]);
    const Channel theirs(ends[1]);
    const std::string parent = std::to_string(::getpid());
    const char* const arguments[] = {"prefillbench", "rank",         "--socket", "3",
                                     "--parent",     parent.c_str(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 3);
    posix_spawn_file_actions_adddup2(&actions, 2, 1);  // what the program prints is rank 0's alone
    const int error = ::posix_spawn(&peer.pid, o.program.c_str(), &actions, nullptr,
                                    const_cast<char* const*>(arguments), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
      peer.pid = -1;
      throw std::runtime_error(str(o.program, ": can not be started: ", std::strerror(error)));
    }
    peer.channel->send({{"folder", folder_},
                        {"rank", i + 1},
                        {"size", o.size},
                        {"model", o.model_folder},
                        {"backend", o.backend},
                        {"dtype", o.dtype},
                        {"threads", o.threads}});
  }

  void tell(const json& head, const std::vector<int32_t>& ids) {
    for (size_t i = 0; i < peers_.size(); ++i)
      if (!peers_[i].channel->send(head, ids)) answer(i, kAfterDeath);  // says how it ended
  }

  /// The next message of a rank; nothing when none comes in time. Throws DeviceLost when the rank is gone.
  std::optional<Message> take(size_t i, std::chrono::seconds timeout) {
    std::unique_lock lock(mutex_);
    Peer& peer = peers_[i];
    arrived_.wait_for(lock, timeout, [&] { return !peer.inbox.empty() || peer.gone; });
    if (!peer.inbox.empty()) {
      Message m = std::move(peer.inbox.front());
      peer.inbox.pop_front();
      if (m.head.contains("error")) alarm_.reset();
      return m;
    }
    if (!peer.gone) return std::nullopt;
    alarm_.reset();
    lose(str("rank ", i + 1, " ", peer.how));
  }

  /// The same, where silence and errors are the end.
  Message answer(size_t i, std::chrono::seconds timeout) {
    std::optional<Message> m = take(i, timeout);
    if (!m) lose(str("rank ", i + 1, " did not answer within ", timeout.count(), " s"));
    if (m->head.contains("error")) lose(str("rank ", i + 1, ": ", m->head.at("error").get<std::string>()));
    return std::move(*m);
  }

  /// While setting up, another rank's error is as good as one here.
  void expect(size_t i, const char* what, std::chrono::seconds timeout) {
    std::optional<Message> m = take(i, timeout);
    if (!m) throw std::runtime_error(str("rank ", i + 1, " was not ready within ", timeout.count(), " s"));
    if (m->head.contains("error")) {
      const std::string text = str("rank ", i + 1, ": ", m->head.at("error").get<std::string>());
      if (m->head.at("kind") == "input") throw InputError(text);
      if (m->head.at("kind") == "unsupported") throw Unsupported(text);
      throw std::runtime_error(text);
    }
    if (!m->head.contains(what)) throw std::logic_error(str("rank ", i + 1, " said ", m->head.dump()));
  }

  /// Waits for the answers to the last prefill.
  void settle() {
    if (!unanswered_) return;
    unanswered_ = false;
    for (size_t i = 0; i < peers_.size(); ++i) {
      const Message m = answer(i, kReply);
      if (m.head.at("sums").get<int64_t>() != communicator_->sums())
        lose(str("rank ", i + 1, " added up another number of times than rank 0"));
    }
  }

  void watch() {
    for (;;) {
      std::vector<pollfd> fds{{wake_, POLLIN, 0}};
      std::vector<size_t> whose;
      for (size_t i = 0; i < peers_.size(); ++i)
        if (!peers_[i].gone) fds.push_back({peers_[i].channel->fd(), POLLIN, 0}), whose.push_back(i);
      ::poll(fds.data(), nfds_t(fds.size()), 200);
      if (fds[0].revents) return;
      for (size_t k = 0; k < whose.size(); ++k)
        if (fds[k + 1].revents) hear(whose[k]);
      std::unique_lock lock(mutex_);
      if (alarm_ && Steady::now() > *alarm_) {
        std::cerr << "prefillbench: device lost: " << alarm_text_ << "; all ranks end here\n";
        for (const Peer& p : peers_)
          if (p.pid > 0 && !p.gone) ::kill(p.pid, SIGKILL);
        remove_folder();
        ::_exit(exit_device_lost);  // the main thread may be inside a kernel that never ends
      }
    }
  }

  void hear(size_t i) {
    std::optional<Message> m = peers_[i].channel->receive();
    std::string how;
    if (!m) how = reap(peers_[i], std::chrono::seconds(2));
    std::unique_lock lock(mutex_);
    if (m) {
      if (m->head.contains("error"))
        arm(kAfterError, str("rank ", i + 1, ": ", m->head.at("error").get<std::string>()));
      peers_[i].inbox.push_back(std::move(*m));
    } else {
      peers_[i].gone = true;
      peers_[i].how = how;
      if (!ending_) arm(kAfterDeath, str("rank ", i + 1, " ", how));
    }
    arrived_.notify_all();
  }

  /// The ranks can not go on together.
  [[noreturn]] void lose(const std::string& why) {
    lost_ = true;
    throw DeviceLost(why);
  }

  void arm(std::chrono::seconds after, std::string text) {
    if (alarm_) return;
    alarm_ = Steady::now() + after;
    alarm_text_ = std::move(text);
  }

  /// Waits for a process to end; ends it after a while.
  static std::string reap(Peer& peer, std::chrono::seconds patience) {
    if (peer.pid <= 0) return "ended";
    int status = 0;
    for (const auto until = Steady::now() + patience; ::waitpid(peer.pid, &status, WNOHANG) == 0;
         std::this_thread::sleep_for(std::chrono::milliseconds(5)))
      if (Steady::now() > until) ::kill(peer.pid, SIGKILL);
    peer.pid = -1;
    return ending(status);
  }

  void end() {
    {
      const std::unique_lock lock(mutex_);
      ending_ = true;
      alarm_.reset();
      arm(kEnd, "the ranks did not part in time");
    }
    for (const Peer& p : peers_) {
      if (p.channel) p.channel->send({{"op", "end"}});
      const pid_t pid = p.pid;  // the watcher may reap it meanwhile
      if (lost_ && pid > 0) ::kill(pid, SIGKILL);
    }
    if (lost_ && communicator_) communicator_->abandon();
    communicator_.reset();
    if (watcher_.joinable()) {
      const uint64_t one = 1;
      if (::write(wake_, &one, sizeof one) != sizeof one) std::abort();
      watcher_.join();
    }
    for (Peer& p : peers_) reap(p, std::chrono::seconds(10));
    if (wake_ >= 0) ::close(std::exchange(wake_, -1));
    remove_folder();
  }

  void remove_folder() {
    std::error_code ignored;
    if (!folder_.empty()) fs::remove_all(folder_, ignored);
    folder_.clear();
  }

  at::Device device_;
  std::string folder_;
  std::vector<Peer> peers_;
  std::unique_ptr<Communicator> communicator_;
  bool unanswered_ = false;  ///< the last prefill
  bool lost_ = false;        ///< DeviceLost was thrown

  int wake_ = -1;
  std::thread watcher_;
  std::mutex mutex_;  ///< of all below, and of inbox, gone and how of the peers
  std::condition_variable arrived_;
  std::optional<Steady::time_point> alarm_;
  std::string alarm_text_;
  bool ending_ = false;
};

namespace {

/// Rank 0's shard, which has the others compute theirs with it.
template <class Group>
class LeadModel final : public Model {
 public:
  LeadModel(Group& ranks, std::unique_ptr<Model> shard) : ranks_(ranks), shard_(std::move(shard)) {}

  const ModelShape& shape() const override { return shard_->shape(); }
  HeadRange heads() const override { return shard_->heads(); }
  int64_t max_tokens() const override { return shard_->max_tokens(); }
  std::string dtype() const override { return shard_->dtype(); }
  int64_t parameter_count() const override { return shard_->parameter_count(); }
  bool random_weights() const override { return shard_->random_weights(); }
  std::vector<int32_t> eos_ids() const override { return shard_->eos_ids(); }

  at::Tensor prefill(const std::vector<int32_t>& ids, AttentionHook& hook, Logits wanted) override {
    return ranks_.together(command(hook, wanted == Logits::last), ids, /*answered=*/true,
                           [&] { return shard_->prefill(ids, hook, wanted); });
  }
  at::Tensor prefill_hidden(const std::vector<int32_t>& ids, AttentionHook& hook) override {
    return ranks_.together(command(hook, false), ids, /*answered=*/true,
                           [&] { return shard_->prefill_hidden(ids, hook); });
  }
  at::Tensor logits(const at::Tensor& hidden) const override { return shard_->logits(hidden); }
  at::Tensor decode(int32_t id) override {
    return ranks_.together({{"op", "decode"}}, {id}, /*answered=*/false, [&] { return shard_->decode(id); });
  }
  void reset() override { shard_->reset(); }  // the others forget when the next prompt comes

 private:
  static json command(const AttentionHook& hook, bool last) {
    const json how = hook.describe();
    if (how.is_null())
      throw Unsupported("what looks into the attention of all heads at once needs the model in one process");
    return {{"op", "prefill"}, {"hook", how}, {"last", last}};
  }

  Group& ranks_;
  std::unique_ptr<Model> shard_;
};

}  // namespace

Ranks::Ranks(const RanksOptions& o, const KernelBackend& backend)
    : impl_(std::make_unique<Impl>(o, backend)) {}
Ranks::~Ranks() = default;
int Ranks::size() const { return impl_->size(); }
Communicator& Ranks::communicator() const { return impl_->communicator(); }

std::unique_ptr<Model> Ranks::lead(std::unique_ptr<Model> shard) {
  impl_->wait_until_loaded();
  return std::make_unique<LeadModel<Impl>>(*impl_, std::move(shard));
}

std::vector<PromptReport> Ranks::reports(PromptReport own, bool whole) {
  return impl_->reports(std::move(own), whole);
}

LoadedModel load_on_ranks(const std::string& folder, const KernelBackend& backend, const std::string& dtype,
                          int ranks, int threads_per_rank) {
  LoadedModel out;
  ModelOptions options;
  options.dtype = dtype;
  options.device = backend.device();
  if (ranks == 1) {
    out.model = load_model(folder, options);
    return out;
  }
  out.ranks = std::make_unique<Ranks>(RanksOptions{.size = ranks,
                                                   .model_folder = folder,
                                                   .backend = backend.name(),
                                                   .dtype = dtype,
                                                   .threads = threads_per_rank},
                                      backend);
  options.device = backend.device();
  options.ranks = &out.ranks->communicator();
  out.model = out.ranks->lead(load_model(folder, options));
  return out;
}

}  // namespace prefill
