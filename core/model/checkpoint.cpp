#include "core/model/checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/text.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;

/// Shards of an index file, checked against what it promises.
std::vector<SafetensorsFile> open_shards(const std::string& folder, const std::string& index) {
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(read_file(index));
  } catch (const nlohmann::json::exception& e) {
    throw InputError(str(index, ": not valid JSON: ", e.what()));
  }
  if (!value.is_object() || !value.contains("weight_map") || !value["weight_map"].is_object())
    throw InputError(str(index, ": expected an object with a weight_map"));
  std::map<std::string, std::vector<std::string>> by_file;
  for (const auto& [name, file] : value["weight_map"].items()) {
    if (!file.is_string()) throw InputError(str(index, ": weight_map of '", name, "' is not a file name"));
    by_file[file.get<std::string>()].push_back(name);
  }
  std::vector<SafetensorsFile> out;
  for (const auto& [file, names] : by_file) {
    const std::string path = folder + "/" + file;
    if (file.find('/') != std::string::npos)
      throw InputError(str(index, ": shard '", file, "' is not in this folder"));
    if (!fs::exists(path)) throw InputError(str(index, ": shard ", file, " is missing in ", folder));
    out.push_back(SafetensorsFile::open(path));
    for (const auto& name : names)
      if (!out.back().has(name))
        throw InputError(str(index, ": tensor '", name, "' is not in ", file, ", where weight_map puts it"));
  }
  return out;
}

[[noreturn]] void no_weights(const std::string& folder) {
  std::string found;
  std::error_code ignored;
  for (const auto& f : fs::directory_iterator(folder, ignored)) {
    const auto ext = f.path().extension();
    if (ext == ".bin" || ext == ".gguf" || ext == ".pth" || ext == ".pt" || ext == ".safetensors")
      found += (found.empty() ? "; found " : ", ") + f.path().filename().string();
  }
  throw InputError(str(folder, ": neither model.safetensors nor model.safetensors.index.json", found));
}

}  // namespace

Checkpoint Checkpoint::open(const std::string& folder) {
  Checkpoint c;
  c.folder_ = folder;
  const std::string index = folder + "/model.safetensors.index.json", single = folder + "/model.safetensors";
  if (fs::exists(single))
    c.files_.push_back(SafetensorsFile::open(single));
  else if (fs::exists(index))
    c.files_ = open_shards(folder, index);
  else
    no_weights(folder);
  for (size_t i = 0; i < c.files_.size(); ++i)
    for (const auto& [name, entry] : c.files_[i].entries())
      if (auto [it, fresh] = c.where_.emplace(name, i); !fresh)
        throw InputError(
            str(c.files_[i].path(), ": tensor '", name, "' is also in ", c.files_[it->second].path()));
  return c;
}

Checkpoint Checkpoint::random(int64_t seed) {
  Checkpoint c;
  c.seed_ = seed;
  return c;
}

const SafetensorsFile& Checkpoint::file(const std::string& name) const {
  const auto it = where_.find(name);
  if (it == where_.end())
    throw InputError(str(folder_, ": tensor '", name, "' is missing", did_you_mean(name, names())));
  return files_[it->second];
}

const SafetensorsFile::Entry& Checkpoint::entry(const std::string& name) const {
  return file(name).entries().at(name);
}
const std::string& Checkpoint::file_of(const std::string& name) const { return file(name).path(); }

void Checkpoint::require(const std::string& name, const std::vector<int64_t>& shape) const {
  if (is_random()) return;
  if (!has(name))
    throw InputError(str(folder_, ": tensor '", name, "' is missing; expected shape ", shape_text(shape),
                         did_you_mean(name, names())));
  const auto& e = entry(name);
  if (e.shape != shape)
    throw InputError(str(file_of(name), ": tensor '", name, "' has shape ", shape_text(e.shape),
                         ", expected ", shape_text(shape), " by config.json"));
  if (e.dtype != at::kFloat && e.dtype != at::kHalf && e.dtype != at::kBFloat16)
    throw InputError(
        str(file_of(name), ": tensor '", name, "' is ", e.dtype_name, ", expected F32, F16 or BF16"));
}

at::Tensor Checkpoint::tensor(const std::string& name, const std::vector<int64_t>& shape) const {
  require(name, shape);
  return file(name).tensor(name);
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> out;
  for (const auto& [name, index] : where_) out.push_back(name);
  std::sort(out.begin(), out.end());
  return out;
}

uint64_t Checkpoint::data_bytes() const {
  uint64_t bytes = 0;
  for (const auto& f : files_)
    for (const auto& [name, e] : f.entries()) bytes += e.end - e.begin;
  return bytes;
}

void refuse_not_finite(const at::Tensor& view, const std::string& name, const std::string& file) {
  if (view.numel() == 0) return;
  const auto [low, high] = at::aminmax(view);  // both take NaN along: one pass finds NaN and infinity alike
  const double lo = low.item().toDouble(), hi = high.item().toDouble();
  if (std::isnan(lo) || std::isnan(hi)) throw InputError(str(file, ": tensor '", name, "' holds NaN"));
  if (std::isinf(lo) || std::isinf(hi)) throw InputError(str(file, ": tensor '", name, "' holds infinity"));
}

std::string weights_fingerprint(const std::string& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json")
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  Sha256 hash;
  std::string buffer(1 << 20, '\0');
  for (const auto& file : files) {
    const auto size = fs::file_size(file);
    hash.update(str(file.filename().string(), "\n", size, "\n"));
    std::ifstream in(file, std::ios::binary);
    for (uintmax_t at = 0; at < size; at += uintmax_t(64) << 20) {
      in.seekg(std::streamoff(at));
      in.read(buffer.data(), std::streamsize(std::min<uintmax_t>(buffer.size(), size - at)));
      hash.update(std::string_view(buffer.data(), size_t(in.gcount())));
      in.clear();
    }
  }
  return hash.hex();
}

}  // namespace prefill
