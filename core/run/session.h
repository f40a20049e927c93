// Everything an experiment needs in memory: backend, model, tokenizer, workloads, methods, and the identity
// of each run.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/model/model.h"
#include "core/run/experiment.h"
#include "core/run/ranks.h"
#include "core/run/workload.h"
#include "core/text/tokenizer.h"

namespace prefill {

struct Session {
  std::unique_ptr<KernelBackend> backend;
  std::string model_folder;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Ranks> ranks;  ///< null: this process has the whole model
  std::unique_ptr<Model> model;
  std::vector<std::unique_ptr<Workload>> workloads;  ///< as in the experiment
  std::vector<std::unique_ptr<Method>> methods;      ///< as the experiment's points
  int threads = 1;                                   ///< of each rank
  nlohmann::json model_identity;
  std::vector<nlohmann::json> workload_data;  ///< Task::provenance() of each workload: other data, other run
};

/// Sets everything up; throws InputError / Unsupported with the reasons. Prints nothing, creates nothing. A
/// workload whose data are not here is taken out of the experiment and noted among its pruned points, unless
/// none is left. alone: without the other ranks of a shared model, to look and not to measure.
Session open_session(Experiment&, bool alone = false);

/// What open_session() would refuse in the files that the experiment names, said with its place and found
/// without loading the weights of the model in `model_folder`: tokenizer, data of tasks, artefacts of
/// methods. Workloads whose data are not here are noted among the pruned points.
Diagnostics check_files(Experiment&, const std::string& model_folder);

/// What names a run: typed parameters of method, model, workload, backend. Its hash is the run's id.
nlohmann::json identity_of(const Experiment&, const Session&, const WorkloadSpec&, const MethodPoint&,
                           int max_new_tokens);

/// "auto" -> the best backend that is available here; else the named one. Throws Unsupported with what would
/// mend it.
std::unique_ptr<KernelBackend> open_backend(const std::string& name);

/// The correctness gate: dense and random tile plans at the model's head shape and dtype, backend against
/// cpu-ref, before anything is timed. Throws std::runtime_error with the error measured.
void verify_backend(const KernelBackend&, const ModelShape&, const std::string& dtype);

}  // namespace prefill
