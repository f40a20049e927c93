// The safetensors file format: a length, a JSON header, then the raw tensors one after another.
// https://github.com/huggingface/safetensors describes it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace prefill {

/// One file, mapped into memory and never copied: opening 16 GB costs the reading of the header. The whole
/// header is validated on opening (JSON, dtypes, sizes, offsets that tile the file exactly), so tensor() can
/// not run out of the file. Copies share the mapping, which lives as long as the last tensor that looks into
/// it.
class SafetensorsFile {
 public:
  struct Entry {
    at::ScalarType dtype;
    std::string dtype_name;  ///< as the file spells it: "BF16"
    std::vector<int64_t> shape;
    uint64_t begin, end;  ///< bytes, from the start of the tensor data
  };

  /// Throws InputError naming the file, the tensor and what was expected.
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const;
  bool has(const std::string& name) const { return entries().count(name) != 0; }
  const std::map<std::string, Entry>& entries() const;
  /// The header's `__metadata__`: strings by name.
  const std::map<std::string, std::string>& metadata() const;
  /// A read-only view of the mapping (writing to it is a fault). Throws InputError when there is no such
  /// tensor, with the nearest name.
  at::Tensor tensor(const std::string& name) const;
  /// metadata()[key]; throws InputError when it is missing.
  const std::string& meta(const std::string& key) const;

 private:
  struct Mapping;
  std::shared_ptr<const Mapping> file_;
};

/// Writes tensors (any device, any strides) in the given order, and metadata. Goes to a temporary file beside
/// the target that is flushed and renamed, so a half-written file is never taken for a whole one. Throws
/// InputError when the disk does not take it, std::logic_error when a name is used twice or a dtype has no
/// name.
void write_safetensors(const std::string& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// "[3, 64]", for messages.
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace prefill
