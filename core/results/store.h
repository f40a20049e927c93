// results/<experiment>/<run id>/: spec.json, provenance.json, samples.jsonl (append-only), summary.json
// (written last: its presence means complete). See results/README.md for the schema.
#pragma once
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

namespace prefill {

constexpr int kResultsSchema = 1;

/// First 16 hex digits of the SHA-256 of the identity's canonical JSON: typed parameters, so 0.9 and .90 are
/// one run.
std::string run_id(const nlohmann::json& identity);

/// Appends whole lines, each flushed to the disk before append() returns. Opening cuts a line that a crash
/// tore.
class SampleLog {
 public:
  /// `file` is created when missing. Throws InputError when a whole line is no JSON, naming file and line.
  explicit SampleLog(std::string file);
  ~SampleLog();
  SampleLog(const SampleLog&) = delete;
  /// Refuses numbers that are not finite (JSON has none; they would turn into null unseen).
  void append(const nlohmann::json& record);
  /// Samples that need no further run: their last record is "ok" or "unsupported".
  const std::set<std::string>& settled() const { return settled_; }

 private:
  void note(const nlohmann::json& record);
  std::string file_;
  int fd_ = -1;
  std::set<std::string> settled_;
};

/// The runs of one experiment under `root`/`experiment`, for one writer (an advisory lock keeps a second one
/// out; shards of a sweep write logs of their own and do not exclude each other).
class ResultStore {
 public:
  /// shard "" or "2-of-8". Throws InputError when another process writes here.
  ResultStore(std::string root, const std::string& experiment, std::string shard);
  ~ResultStore();
  std::string folder(const std::string& id) const;
  bool complete(const std::string& id) const;
  /// Creates the run's folder, or checks that what is there has the same identity and hardware.
  SampleLog& open(const std::string& id, const nlohmann::json& spec, const nlohmann::json& provenance);
  /// Writes summary.json when all of `samples` are settled over all shards' logs; false when some are
  /// missing.
  bool finish(const std::string& id, const std::vector<std::string>& samples);

 private:
  std::string root_, shard_;
  int lock_ = -1;
  std::map<std::string, std::unique_ptr<SampleLog>> logs_;
};

struct MergedRun {
  std::string run;                  ///< its folder, relative to the merged one
  int64_t settled = 0, wanted = 0;  ///< samples
  size_t folders = 0;               ///< that it was found in
  bool complete = false;            ///< has a summary.json
};

/// Union of two or more result roots (or experiment folders) into `out`: by (run id, sample), the newest
/// settled record wins. Throws InputError when two runs of one id differ in identity.
std::vector<MergedRun> merge_results(const std::vector<std::string>& from, const std::string& out);

/// All records of a run folder (samples*.jsonl), in order; a torn last line is skipped and counted.
std::vector<nlohmann::json> read_samples(const std::string& run_folder, int* torn_lines = nullptr);

}  // namespace prefill
