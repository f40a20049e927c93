#include "core/report/result_set.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kSchema = 1;    // of spec.json, samples.jsonl and summary.json
constexpr int kMaxDepth = 4;  // results/<experiment>/<run id> plus one folder around it

void check_schema(const json& j, const std::string& where) {
  const auto it = j.find("schema");
  if (it == j.end() || !it->is_number_integer())
    throw InputError(where + ": no integer \"schema\"; is this a result of prefillbench?");
  if (it->get<int64_t>() > kSchema)
    throw InputError(str(where, ": schema ", it->get<int64_t>(), " is newer than this program reads (",
                         kSchema, "); update prefillbench"));
}

json parse_file(const fs::path& path) {
  json j = json::parse(read_file(path.string()), nullptr, /*allow_exceptions=*/false);
  if (!j.is_object()) throw InputError(path.string() + ": not a JSON object; the file is damaged");
  return j;
}

/// j[key] as T, or `fallback` when the key is missing or null. A value of another type is an error.
template <class T>
T field(const json& j, const char* key, T fallback, const std::string& where) {
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return fallback;
  try {
    return it->get<T>();
  } catch (const json::exception&) {
    throw InputError(str(where, ": \"", key, "\" has an unexpected type: ", it->dump()));
  }
}

const json& object_at(const json& j, const char* key, const std::string& where) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_object()) throw InputError(str(where, ": no object \"", key, "\""));
  return *it;
}

Timing read_timing(const json& j, const std::string& where) {
  return {field(j, "ttft_s", std::vector<double>{}, where),
          field(j, "attention_s", std::vector<double>{}, where)};
}

SampleResult read_sample(const json& j, const std::string& where) {
  check_schema(j, where);
  SampleResult s;
  s.id = field(j, "sample", std::string{}, where);
  s.status = field(j, "status", std::string{}, where);
  if (s.id.empty() || s.status.empty())
    throw InputError(where + ": a record needs \"sample\" and \"status\"");
  s.why = field(j, "why", std::string{}, where);
  if (const auto it = j.find("score"); it != j.end() && it->is_number()) {
    s.has_score = true;
    s.score = it->get<double>();
  }
  s.metric = field(j, "metric", std::string{}, where);
  s.prediction = field(j, "prediction", std::string{}, where);
  s.answer = j.value("answer", json());
  s.tokens = field(j, "tokens", int64_t{0}, where);
  s.time = read_timing(j, where);
  s.stages_s = field(j, "stages_s", std::map<std::string, double>{}, where);
  s.decode_s = field(j, "decode_s", -1.0, where);
  s.density = field(j, "density", -1.0, where);
  s.layer_density = field(j, "layer_density", std::vector<double>{}, where);
  if (const auto it = j.find("dense"); it != j.end() && it->is_object()) {
    s.has_dense = true;
    s.dense_time = read_timing(*it, where);
    if (const auto score = it->find("score"); score != it->end() && score->is_number()) {
      s.has_dense_score = true;
      s.dense_score = score->get<double>();
    }
  }
  s.kernels = field(j, "kernels", std::vector<std::string>{}, where);
  s.device_peak_bytes = field(j, "device_peak_bytes", -1.0, where);
  s.score_error = field(j, "score_error", std::string{}, where);
  s.facts = j.value("facts", json::object());
  s.details = j.value("details", json());
  return s;
}

void read_log(const fs::path& path, RunData& run) {
  const std::string text = read_file(path.string());
  size_t line_number = 0;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string line = text.substr(start, end - start);
    start = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const json j = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!j.is_object()) {
      ++run.torn_lines;
      continue;
    }
    SampleResult sample = read_sample(j, str(path.string(), ":", line_number));
    auto [it, fresh] = run.samples.emplace(sample.id, sample);
    if (!fresh && (sample.ok() || !it->second.ok())) it->second = std::move(sample);
  }
}

RunData read_run(const fs::path& folder) {
  RunData run;
  run.folder = folder.string();
  const fs::path spec_path = folder / "spec.json";
  run.spec = parse_file(spec_path);
  const std::string where = spec_path.string();
  check_schema(run.spec, where);
  run.id = field(run.spec, "id", folder.filename().string(), where);
  run.experiment = field(run.spec, "experiment", folder.parent_path().filename().string(), where);
  const json& method = object_at(run.spec, "method", where);
  run.method = field(method, "name", std::string{}, where);
  run.method_version = field(method, "version", 1, where);
  run.params = method.value("params", json::object());
  run.label = field(method, "label", run.method, where);
  const json& model = object_at(run.spec, "model", where);
  run.model = field(model, "name", std::string{}, where);
  run.model_sha = field(model, "sha256", std::string{}, where);
  const json& work = object_at(run.spec, "workload", where);
  run.task = field(work, "task", std::string{}, where);
  run.task_version = field(work, "version", 1, where);
  run.task_params = work.value("params", json::object());
  run.task_data = work.value("data", json());
  run.tokens = field(work, "tokens", int64_t{0}, where);
  run.count = field(work, "count", int64_t{0}, where);
  run.seed = field(work, "seed", uint64_t{0}, where);
  run.profile = field(work, "profile", std::string{}, where);
  run.max_new_tokens = field(work, "max_new_tokens", int64_t{0}, where);
  run.backend = field(run.spec, "backend", std::string{}, where);
  run.dtype = field(run.spec, "dtype", std::string{}, where);
  run.threads = field(run.spec, "threads", 0, where);
  if (run.method.empty() || run.task.empty()) throw InputError(where + ": no method name or no task name");

  if (const fs::path p = folder / "provenance.json"; fs::exists(p)) {
    run.provenance = parse_file(p);
    run.hardware = field(run.provenance, "hardware", std::string{}, p.string());
  }
  if (const fs::path p = folder / "summary.json"; fs::exists(p)) {
    check_schema(parse_file(p), p.string());
    run.complete = true;
  }
  std::vector<fs::path> logs;  // samples.jsonl, and samples-2-of-8.jsonl where shards wrote side by side
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("samples") && name.ends_with(".jsonl")) logs.push_back(entry.path());
  }
  std::sort(logs.begin(), logs.end());
  for (const fs::path& log : logs) read_log(log, run);
  return run;
}

void find_runs(const fs::path& folder, int depth, std::vector<fs::path>& out) {
  if (fs::exists(folder / "spec.json")) {
    out.push_back(folder);
    return;
  }
  if (depth == 0) return;
  std::vector<fs::path> inside;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.is_directory(ignored)) inside.push_back(entry.path());
  std::sort(inside.begin(), inside.end());
  for (const fs::path& p : inside) find_runs(p, depth - 1, out);
}

std::vector<fs::path> resolve(const std::string& argument, const std::string& results_root) {
  std::vector<fs::path> found;
  if (fs::is_directory(argument)) {
    find_runs(fs::path(argument), kMaxDepth, found);
    if (found.empty())
      throw InputError(argument + ": no run in this folder (a run is a folder with spec.json)");
    return found;
  }
  if (fs::exists(argument))
    throw InputError(argument + ": is a file; give the folder of a run or of an experiment");
  const bool id_like =
      argument.size() >= 4 && argument.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!id_like) throw InputError(argument + ": no such folder, and not a run id");
  std::vector<fs::path> all;
  if (fs::is_directory(results_root)) find_runs(fs::path(results_root), kMaxDepth, all);
  for (const fs::path& p : all)
    if (p.filename().string().rfind(argument, 0) == 0) found.push_back(p);
  if (found.empty())
    throw InputError(str(argument, ": no such folder, and no run of that id below ", results_root));
  if (found.size() > 1)
    throw InputError(str(argument, ": ", found.size(), " runs begin with this id: ", found[0].string(), ", ",
                         found[1].string()));
  return found;
}

}  // namespace

std::string RunData::point_key() const {
  return json{{"method", method},
              {"version", method_version},
              {"params", params},
              {"backend", backend},
              {"dtype", dtype}}
      .dump();
}

std::string RunData::workload_key() const {
  return json{{"model", model},        {"task", task},       {"version", task_version},
              {"params", task_params}, {"data", task_data},  {"tokens", tokens},
              {"seed", seed},          {"profile", profile}, {"max_new_tokens", max_new_tokens}}
      .dump();
}

std::vector<RunData> load_runs(const std::vector<std::string>& arguments, const std::string& results_root) {
  std::vector<RunData> runs;
  std::set<fs::path> seen;  // the same folder given twice counts once
  for (const std::string& argument : arguments)
    for (const fs::path& folder : resolve(argument, results_root))
      if (seen.insert(fs::weakly_canonical(folder)).second) runs.push_back(read_run(folder));
  return runs;
}

std::string hardware_text(const RunData& run) {
  return run.hardware.empty() ? "unknown machine" : run.hardware;
}

}  // namespace prefill
