// A rank other than 0: loads its shard and computes what rank 0 says until that is gone.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <map>

#include "core/base/channel.h"
#include "core/base/error.h"
#include "core/run/ranks.h"
#include "core/run/session.h"

namespace prefill {
namespace {

using nlohmann::json;

class RankWorker {
 public:
  RankWorker(const Channel& channel, const json& start) : channel_(channel) {
    const int rank = start.at("rank").get<int>(), size = start.at("size").get<int>();
    at::set_num_threads(start.at("threads").get<int>());
    backend_ = open_backend(start.at("backend").get<std::string>());
    use_device(*backend_, rank, size);
    channel_.send({{"here", true}});
    communicator_ = join_ranks({start.at("folder").get<std::string>(), rank, size}, backend_->device());
    ModelOptions options;
    options.dtype = start.at("dtype").get<std::string>();
    options.device = backend_->device();
    options.ranks = communicator_.get();
    model_ = load_model(start.at("model").get<std::string>(), options);
    verify_backend(*backend_, model_->own_shape(), model_->dtype());
    channel_.send({{"loaded", true}});
  }

  /// False at the end.
  bool serve(const Message& m) {
    const std::string op = m.head.at("op").get<std::string>();
    if (op == "end") return false;
    if (op == "prefill") {
      prefill(m);
      channel_.send({{"done", true}, {"sums", communicator_->sums()}});
    } else if (op == "decode") {
      model_->decode(m.ids.at(0));
    } else {
      const PromptReport report = report_of(*engine_, *clock_, *backend_, m.head.at("whole").get<bool>());
      channel_.send({{"report", to_json(report)}});
    }
    return true;
  }

  int64_t sums() const { return communicator_->sums(); }

 private:
  void prefill(const Message& m) {
    const json& hook = m.head.at("hook");
    engine_.reset();
    clock_ = backend_->make_clock();
    engine_ = std::make_unique<AttentionEngine>(method(hook.at("method")), *backend_, *clock_,
                                                int64_t(m.ids.size()));
    engine_->check_plans = hook.at("check_plans").get<bool>();
    backend_->reset_peak();
    model_->reset();
    if (m.head.at("last").get<bool>())
      model_->prefill(m.ids, *engine_, Logits::last);
    else
      model_->prefill_hidden(m.ids, *engine_);
    backend_->synchronize();
  }

  const Method& method(const json& spec) {
    auto& made = methods_[spec.dump()];
    if (!made)
      made = make_method(spec.at("name").get<std::string>(), spec.at("params"), model_->method_env());
    return *made;
  }

  const Channel& channel_;
  std::unique_ptr<KernelBackend> backend_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<Model> model_;
  std::map<std::string, std::unique_ptr<Method>> methods_;
  std::unique_ptr<StageClock> clock_;
  std::unique_ptr<AttentionEngine> engine_;
};

/// Runs `work`; what it throws goes to rank 0. False when it threw.
template <class F>
bool reporting(const Channel& channel, const RankWorker* worker, F work) {
  const auto said = [&](const char* kind, const std::string& text) {
    channel.send({{"error", text}, {"kind", kind}, {"sums", worker ? worker->sums() : 0}});
    return false;
  };
  try {
    work();
    return true;
  } catch (const InputError& e) {
    return said("input", e.what());
  } catch (const Unsupported& e) {
    return said("unsupported", e.what());
  } catch (const c10::Error& e) {
    return said("other", e.what_without_backtrace());
  } catch (const std::exception& e) {
    return said("other", e.what());
  }
}

}  // namespace

int serve_rank(int fd, int parent) {
  // Without rank 0 there is nothing to do, also inside a kernel that waits for it.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) return exit_some_failed;
  const Channel channel(fd);
  const std::optional<Message> start = channel.receive();
  if (!start) return exit_some_failed;
  std::unique_ptr<RankWorker> worker;
  if (!reporting(channel, nullptr, [&] { worker = std::make_unique<RankWorker>(channel, start->head); }))
    return exit_some_failed;
  for (bool more = true; more;) {
    const std::optional<Message> m = channel.receive();
    if (!m) return exit_some_failed;
    reporting(channel, worker.get(), [&] { more = worker->serve(*m); });
  }
  return exit_ok;
}

}  // namespace prefill
