// The tensors of a Hugging Face folder: model.safetensors, or shards listed in model.safetensors.index.json.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/model/safetensors.h"

namespace prefill {

class Checkpoint {
 public:
  /// Maps all shards. Throws InputError: no weights (saying what was found instead), a shard of the index
  /// that is missing, an index that names a tensor its shard does not hold, a tensor in two shards.
  static Checkpoint open(const std::string& folder);
  /// No files: weights drawn at random (ModelConfig::random_seed).
  static Checkpoint random(int64_t seed);
  bool is_random() const { return seed_ >= 0; }
  int64_t seed() const { return seed_; }

  bool has(const std::string& name) const { return where_.count(name) != 0; }
  const SafetensorsFile::Entry& entry(const std::string& name) const;
  const std::string& file_of(const std::string& name) const;
  /// View of the mapping; throws InputError when the tensor is missing or has another shape (both named).
  at::Tensor tensor(const std::string& name, const std::vector<int64_t>& shape) const;
  /// Throws what tensor() would throw, without touching the data. Also refuses dtypes that are not float.
  void require(const std::string& name, const std::vector<int64_t>& shape) const;

  const std::vector<SafetensorsFile>& files() const { return files_; }
  std::vector<std::string> names() const;  ///< sorted
  uint64_t data_bytes() const;

 private:
  const SafetensorsFile& file(const std::string& name) const;
  std::string folder_;
  int64_t seed_ = -1;
  std::vector<SafetensorsFile> files_;
  std::unordered_map<std::string, size_t> where_;  ///< tensor name -> index into files_
};

/// Throws InputError naming the file and the tensor when a value of `view`, all or a part of it, is NaN or
/// infinite. Reads all of them.
void refuse_not_finite(const at::Tensor& view, const std::string& name, const std::string& file);

/// A hash of the weights that does not read 16 GB: name, size, header and every 64th mebibyte of each file,
/// config.json included.
std::string weights_fingerprint(const std::string& model_folder);

}  // namespace prefill
