// An experiment: one YAML file -> workloads x method points, every mistake found at once, with its place.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/method.h"
#include "core/task.h"

namespace prefill {

/// How to measure (architecture and reasons: docs/measuring.md).
struct Measure {
  int warmups =
      -1;  ///< untimed prefills per method and length before the first sample; -1: 0 on CPUs, 1 on GPUs
  int repeats = 1;   ///< timed rounds per sample; each round runs dense and all methods in shuffled order
  int64_t seed = 1;  ///< of the shuffling
  bool check_plans = false;  ///< check every plan's invariants (slow)
  double budget_s = 0;       ///< stop before a round that would end later than this; 0: no limit
  template <class V>
  void fields(V& v) {
    v("warmups", warmups, in(-1, 100),
      "untimed prefills per method and length before the first sample; -1: 0 on CPUs, 1 on GPUs");
    v("repeats", repeats, in(1, 1000),
      "timed rounds per sample; each runs dense and every method once, shuffled");
    v("seed", seed, at_least(0), "seed of the order within rounds");
    v("check_plans", check_plans, any(),
      "check the invariants of every plan (slow; for methods under development)");
    v("budget_s", budget_s, at_least(0),
      "seconds after which no further sample is begun; every method then has the same samples; 0: no limit");
  }
};

/// Line and column in the experiment's file, from 1; 0: nowhere in it.
struct Place {
  int line = 0, column = 0;
};

/// One task at one length.
struct WorkloadSpec {
  const TaskInfo* task = nullptr;
  ParamsHandle params;
  nlohmann::json params_identity;  ///< params.canonical with files by name and content, not by path
  int64_t tokens = 4096, count = 5, seed = 1;
  std::string profile = "official", prompt_template = "none";
  int line = 0, column = 0;  ///< where the file says the length
  Place source;              ///< where it says the file that the samples come from, else the task
  std::string label() const { return str(task->name, "@", tokens); }
};

/// One method with one setting of its parameters.
struct MethodPoint {
  const MethodInfo* method = nullptr;
  ParamsHandle params;
  std::string label = {};
  bool implied = false;  ///< dense, added because every round needs it
  Place source = {};     ///< where the experiment says the file that params name, else the method
  nlohmann::json params_identity = {};  ///< params.canonical with files by name and content, not by path
};

struct PrunedPoint {
  std::string label, reason;
};

struct Experiment {
  std::string file, text, name, description, model = "smollm2-135m-instruct-128k", backend = "auto",
                                             dtype = "auto";
  Place model_place;
  int threads = 0;
  int tensor_parallel = 1;  ///< ranks that share the model
  Measure measure;
  std::vector<WorkloadSpec> workloads;
  std::vector<MethodPoint> points;  ///< dense is always among them
  std::vector<PrunedPoint> pruned;
};

/// Reads and checks a file without running or creating anything. All mistakes are appended to `bad`.
/// quick: the file's `quick` block replaces every workload's tokens and samples, and the name gets "-quick".
Experiment read_experiment(const std::string& file, Diagnostics& bad, bool quick = false);

/// Why there is no backend of this name, and what to do: a typing mistake, or a build without CUDA.
std::string no_such_backend(const std::string& name);

/// The folder of a model: a path as it is, else $PREFILLBENCH_HOME/NAME (default ~/.cache/prefillbench).
/// Throws InputError that says how to get it, or that the folder has no config.json.
std::string resolve_model(const std::string& model, const std::string& base_folder);

/// $PREFILLBENCH_HOME or ~/.cache/prefillbench.
std::string cache_home();

}  // namespace prefill
