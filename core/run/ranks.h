// Several processes of one host that share a model (tensor parallelism). Rank 0 is the program that the user
// started: it has the tokenizer, the tasks and the results, and tells the others what to compute. They are
// started by it, hold their shard of the weights, and do as told (rank_worker.cpp).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/model/model.h"
#include "core/run/prompt_report.h"

namespace prefill {

struct RanksOptions {
  int size = 2;
  std::string model_folder, backend;  ///< backend: a name, not "auto"
  std::string dtype = "auto";
  int threads = 1;                         ///< of each rank
  std::string program = "/proc/self/exe";  ///< what the other ranks run
};

/// Rank 0's end of the others. When one of them fails or dies in the middle of a prompt, rank 0 may wait for
/// it inside a kernel for ever: a thread watches them, and after a few seconds says what happened and ends
/// the whole program (exit code 3).
class Ranks {
 public:
  /// Starts the others and has them join; `backend`'s current device becomes this rank's. Throws InputError
  /// where the model can not be divided so, Unsupported where there are fewer GPUs than ranks.
  Ranks(const RanksOptions&, const KernelBackend& backend);
  ~Ranks();
  Ranks(const Ranks&) = delete;

  int size() const;
  Communicator& communicator() const;
  /// `shard`: this rank's part, loaded with communicator(). Waits until the others have loaded theirs. The
  /// model's hooks must be AttentionEngines: the others make the same from their description.
  std::unique_ptr<Model> lead(std::unique_ptr<Model> shard);
  /// The reports of all ranks on the prompt that was prefilled last, `own` first.
  std::vector<PromptReport> reports(PromptReport own, bool whole);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Life of a rank other than 0: `fd` is its end of the socket, `parent` the process that started it. -> exit
/// code.
int serve_rank(int fd, int parent);

/// Makes the rank's GPU the current device; nothing on CPUs. Throws Unsupported when there are too few, or
/// when the backend uses the first one only.
void use_device(const KernelBackend&, int rank, int size);

/// Backend, model and the ranks that share it, as `run` and `forward` need them.
struct LoadedModel {
  std::unique_ptr<Ranks> ranks;  ///< null: this process alone
  std::unique_ptr<Model> model;
};
LoadedModel load_on_ranks(const std::string& folder, const KernelBackend&, const std::string& dtype,
                          int ranks, int threads_per_rank);

}  // namespace prefill
