// Captured attention inputs: safetensors with layer.N.q [Hq,S,D], layer.N.k and layer.N.v [Hkv,S,D] after
// RoPE.
#pragma once
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/model/safetensors.h"

namespace prefill {

class QkvFile {
 public:
  /// Throws InputError when no tensor is called layer.N.q.
  explicit QkvFile(const std::string& path);
  /// Ascending.
  const std::vector<int>& layers() const { return layers_; }
  /// `asked`, or the file's only layer when asked < 0. Throws InputError listing the layers there are.
  int pick(int asked) const;
  /// Views of the mapped file, scale 1/sqrt(D). Throws InputError naming the tensor whose shape or dtype does
  /// not fit.
  Qkv layer(int index) const;
  const SafetensorsFile& file() const { return file_; }

 private:
  SafetensorsFile file_;
  std::vector<int> layers_;
};

}  // namespace prefill
