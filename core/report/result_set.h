// Reads result folders (results/<experiment>/<run id>/) as the runner leaves them, complete or not. Only
// reads.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace prefill {

/// The metric whose differences are judged in proportion to the baseline's value: of a perplexity of 20 the
/// score is 0.05, and a margin of 0.02 would call anything the same.
inline constexpr const char* kPerplexityMetric = "1/perplexity";

/// Times of one prefill, one value per repeat, in seconds.
struct Timing {
  std::vector<double> ttft_s, attention_s;
};

/// The line of samples.jsonl that counts for one sample: the last ok one, else the last one.
struct SampleResult {
  std::string id;      ///< "passkey-0"
  std::string status;  ///< ok, failed, unsupported, out_of_memory, incorrect, timeout
  std::string why;
  bool has_score = false;
  double score = 0;  ///< 0..1
  std::string metric, prediction;
  nlohmann::json answer;
  int64_t tokens = 0;
  Timing time;
  std::map<std::string, double> stages_s;
  double decode_s = -1;  ///< negative: not recorded
  double density = -1;   ///< negative: not recorded
  std::vector<double> layer_density;
  bool has_dense = false;  ///< dense attention measured on the same sample in the same rounds
  Timing dense_time;
  bool has_dense_score = false;
  double dense_score = 0;
  std::vector<std::string> kernels;
  double device_peak_bytes = -1;  ///< of the accelerator's allocator, negative: not recorded
  std::string score_error;        ///< the scoring profile would have raised: why; the score is 0 then
  nlohmann::json facts;           ///< the method's own
  nlohmann::json details;         ///< what the score sums up, null when there is nothing more

  bool ok() const { return status == "ok"; }
  /// The score is a mean over positions of a text, so that a 1 is no success out of n samples.
  bool of_positions() const { return details.is_object() && details.contains("positions"); }
};

/// One run: one method point on one workload.
struct RunData {
  std::string folder, id, experiment;
  std::string method, label;
  int method_version = 1;
  nlohmann::json params;
  std::string model, model_sha;
  std::string task;
  int task_version = 1;
  nlohmann::json task_params;
  nlohmann::json
      task_data;  ///< file, SHA-256, n, ...; null when the samples were made from parameters and seed
  int64_t tokens = 0, count = 0;
  uint64_t seed = 0;
  std::string profile;
  int64_t max_new_tokens = 0;
  std::string backend, dtype;
  int threads = 0;
  std::string hardware;       ///< key of the machine; times are compared within one key only
  nlohmann::json spec;        ///< spec.json as it stands
  nlohmann::json provenance;  ///< provenance.json as it stands, null when there is none
  bool complete = false;      ///< summary.json is there
  int torn_lines = 0;         ///< lines that are no JSON (an interrupted write): skipped
  std::map<std::string, SampleResult> samples;

  /// What the method was asked, apart from the workload: equal for two runs of one method point.
  std::string point_key() const;
  /// What the samples were drawn from; equal ids under equal keys are the same prompt. The count is left out:
  /// the first five of twenty samples are the five samples. So are the weights: the prompt does not depend on
  /// them.
  std::string workload_key() const;
};

/// All runs below the given folders. Each argument is a run folder, an experiment folder, a folder of
/// experiments, or (when no such path exists) a run id or unique prefix of one below `results_root`.
/// Throws InputError when a path does not exist, holds no run, or a file is of a newer schema or not readable
/// as what it should be; torn lines of samples.jsonl are skipped and counted instead.
std::vector<RunData> load_runs(const std::vector<std::string>& arguments, const std::string& results_root);

/// Name of the machine for captions ("AMD EPYC 7R13, 2 threads").
std::string hardware_text(const RunData& run);

}  // namespace prefill
