// Paired, interleaved measurement: per sample, shuffled rounds of dense and all methods on the same prompt,
// the timed prefill being the one that is decoded and scored.
#pragma once
#include <string>
#include <vector>

#include "core/run/experiment.h"

namespace prefill {

struct RunOptions {
  std::string results = "results";
  int shard = 0,
      shards = 1;    ///< this process takes every shards-th (sample, workload) unit, from `shard` (0-based)
  std::string only;  ///< glob over method labels; dense always runs with them
  bool quiet = false;
  double budget_s = -1;           ///< overrides measure.budget_s when >= 0
  std::vector<std::string> argv;  ///< for provenance
};

/// Runs what is missing in `results`. Workloads whose data are not here are skipped, with a line on stderr.
/// -> ExitCode. Throws InputError before anything is created when the model, tokenizer, tasks or methods can
/// not be set up.
int run_experiment(Experiment&, const RunOptions&);

}  // namespace prefill
