#include "core/results/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/text.h"

namespace prefill {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw InputError(str(path.string(), ": can not be created: ", error.message()));
}

void refuse_non_finite(const json& j, const std::string& path) {
  if (j.is_number_float() && !std::isfinite(j.get<double>()))
    throw std::logic_error(str("result field ", path, " is not finite"));
  if (j.is_structured())
    for (const auto& [key, value] : j.items()) refuse_non_finite(value, path + "/" + key);
}

bool settles(const json& record) {
  const std::string status = record.value("status", "");
  return status == "ok" || status == "unsupported";
}

bool is_log(const fs::path& p) {
  const std::string name = p.filename().string();
  return name.starts_with("samples") && name.ends_with(".jsonl");
}

std::vector<fs::path> logs_of(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (is_log(entry.path())) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

/// summary.json, which says that the run is complete.
/// `records`: those that count, one a sample.
void write_summary(const fs::path& folder, const std::vector<std::string>& samples,
                   const std::map<std::string, json>& records) {
  int64_t ok = 0, scored = 0;
  double sum = 0;
  for (const auto& sample : samples) {
    const json& record = records.at(sample);
    if (record.value("status", "") != "ok") continue;
    ++ok;
    if (record.contains("score")) ++scored, sum += record.at("score").get<double>();
  }
  json summary{{"schema", kResultsSchema}, {"n", samples.size()}, {"ok", ok}, {"samples", samples}};
  if (scored > 0) summary["score"] = sum / double(scored);
  write_file_atomically((folder / "summary.json").string(), summary.dump(1) + "\n");
}

}  // namespace

std::string run_id(const json& identity) { return sha256_hex(identity.dump()).substr(0, 16); }

SampleLog::SampleLog(std::string file) : file_(std::move(file)) {
  if (fs::exists(file_)) {
    const std::string text = read_file(file_);
    const size_t whole = text.rfind('\n') + 1;  // npos + 1 == 0
    if (whole != text.size()) fs::resize_file(file_, whole);
    size_t line = 1;
    for (size_t at = 0; at < whole; ++line) {
      const size_t end = text.find('\n', at);
      const json record = json::parse(text.begin() + long(at), text.begin() + long(end), nullptr, false);
      if (record.is_discarded() || !record.is_object() || !record.contains("sample"))
        throw InputError(
            str(file_, ":", line,
                ": is no sample record; mend or delete the line, or use another results folder"));
      note(record);
      at = end + 1;
    }
  }
  fd_ = ::open(file_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw InputError(str(file_, ": can not be written: ", std::strerror(errno)));
}

SampleLog::~SampleLog() {
  if (fd_ >= 0) ::close(fd_);
}

void SampleLog::note(const json& record) {
  const std::string sample = record.at("sample").get<std::string>();
  if (settles(record)) settled_.insert(sample);
}

void SampleLog::append(const json& record) {
  refuse_non_finite(record, "");
  const std::string line = record.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  // One write call: a reader or a crash sees the whole line or a torn last one, never two lines mixed.
  if (::write(fd_, line.data(), line.size()) != ssize_t(line.size()) || ::fdatasync(fd_) != 0)
    throw InputError(str(file_, ": can not be written: ", std::strerror(errno)));
  note(record);
}

ResultStore::ResultStore(std::string root, const std::string& experiment, std::string shard)
    : root_((fs::path(root) / experiment).string()), shard_(std::move(shard)) {
  make_folder(root_);
  const std::string name = (fs::path(root_) / (shard_.empty() ? ".lock" : ".lock-" + shard_)).string();
  lock_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw InputError(str(name, ": can not be written: ", std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw InputError(
        str(root_, ": another prefillbench is writing here; wait for it, or use another --results folder"));
  }
}

ResultStore::~ResultStore() {
  if (lock_ >= 0) ::close(lock_);
}

std::string ResultStore::folder(const std::string& id) const { return (fs::path(root_) / id).string(); }

bool ResultStore::complete(const std::string& id) const {
  return fs::exists(fs::path(folder(id)) / "summary.json");
}

SampleLog& ResultStore::open(const std::string& id, const json& spec, const json& provenance) {
  auto& log = logs_[id];
  if (log) return *log;
  const fs::path dir = folder(id);
  make_folder(dir);
  const auto provenance_file = dir / "provenance.json";
  if (fs::exists(provenance_file)) {
    const json before = json::parse(read_file(provenance_file.string()), nullptr, false);
    const std::string there = before.is_object() ? before.value("hardware", "") : "",
                      here = provenance.value("hardware", "");
    if (there != here)
      throw InputError(str(dir.string(), ": was measured on '", there, "', this is '", here,
                           "'; use another --results folder"));
  } else {
    write_file_atomically((dir / "spec.json").string(), spec.dump(1) + "\n");
    write_file_atomically(provenance_file.string(), provenance.dump(1) + "\n");
  }
  log = std::make_unique<SampleLog>(
      (dir / (shard_.empty() ? "samples.jsonl" : "samples-" + shard_ + ".jsonl")).string());
  return *log;
}

std::vector<json> read_samples(const std::string& run_folder, int* torn_lines) {
  std::vector<json> out;
  for (const auto& file : logs_of(run_folder)) {
    const std::string text = read_file(file.string());
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      const size_t stop = end == std::string::npos ? text.size() : end;
      json record = json::parse(text.begin() + long(at), text.begin() + long(stop), nullptr, false);
      if (record.is_object() && record.contains("sample"))
        out.push_back(std::move(record));
      else if (torn_lines && stop > at)
        ++*torn_lines;
      at = stop + 1;
    }
  }
  return out;
}

bool ResultStore::finish(const std::string& id, const std::vector<std::string>& samples) {
  std::map<std::string, json> last;
  for (auto& record : read_samples(folder(id))) {
    auto& slot = last[record.at("sample").get<std::string>()];
    if (slot.is_null() || settles(record) || !settles(slot)) slot = record;
  }
  for (const auto& sample : samples)
    if (const auto it = last.find(sample); it == last.end() || !settles(it->second)) return false;
  write_summary(folder(id), samples, last);
  return true;
}

std::vector<MergedRun> merge_results(const std::vector<std::string>& from, const std::string& out) {
  // run folder relative to its root -> where it is found
  std::map<std::string, std::vector<fs::path>> runs;
  for (const auto& root : from) {
    if (!fs::is_directory(root)) throw InputError(str(root, ": is no results folder"));
    for (const auto& entry : fs::recursive_directory_iterator(root))
      if (entry.path().filename() == "spec.json")
        runs[fs::relative(entry.path().parent_path(), root).string()].push_back(entry.path().parent_path());
  }
  if (runs.empty()) throw InputError("no runs were found in the folders to merge (no spec.json anywhere)");
  std::vector<MergedRun> done;
  for (const auto& [name, folders] : runs) {
    const fs::path target = fs::path(out) / name;
    make_folder(target);
    const json spec = json::parse(read_file((folders[0] / "spec.json").string()));
    std::map<std::string, json> merged;  // newest settled record per sample
    for (const auto& folder : folders) {
      const json other = json::parse(read_file((folder / "spec.json").string()));
      if (other != spec)
        throw InputError(str(folder.string(), "/spec.json differs from ", folders[0].string(),
                             "/spec.json though the run id is the same"));
      for (auto& record : read_samples(folder.string())) {
        auto& slot = merged[record.at("sample").get<std::string>()];
        const bool newer = slot.is_null() || record.value("time", "") >= slot.value("time", "");
        if (slot.is_null() || (settles(record) && (newer || !settles(slot))) || (!settles(slot) && newer))
          slot = record;
      }
    }
    std::string text;
    int64_t settled = 0;
    std::vector<std::string> samples;
    for (const auto& [sample, record] : merged) {
      text += record.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
      samples.push_back(sample);
      settled += settles(record);
    }
    write_file_atomically((target / "spec.json").string(), spec.dump(1) + "\n");
    fs::copy_file(folders[0] / "provenance.json", target / "provenance.json",
                  fs::copy_options::overwrite_existing);
    write_file_atomically((target / "samples.jsonl").string(), text);
    const int64_t wanted = spec.at("workload").value("count", int64_t(0));
    const bool complete = settled == int64_t(merged.size()) && settled >= wanted;
    if (complete) write_summary(target, samples, merged);
    done.push_back({name, settled, wanted, folders.size(), complete});
  }
  return done;
}

}  // namespace prefill
