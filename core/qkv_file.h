// Captured attention inputs: safetensors with layer.N.q [Hq,S,D], layer.N.k and layer.N.v [Hkv,S,D] after
// RoPE. Metadata, all optional: model (its name), model_fingerprint (of its weights), model_layers, scale (of
// the logits), rope_theta.
#pragma once
#include <string>
#include <vector>

#include "core/method.h"
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
  /// On `device` (on the CPU: views of the mapped file), with the metadata's scale, else 1/sqrt(D). Throws
  /// InputError naming the tensor whose shape or dtype does not fit.
  Qkv layer(int index, at::Device device = at::kCPU) const;
  /// The model behind a layer: heads from the tensors, the rest from the metadata; what it does not say is ""
  /// or 0. Throws InputError for metadata that is no number.
  ModelShape model(int layer) const;
  const SafetensorsFile& file() const { return file_; }

 private:
  SafetensorsFile file_;
  std::vector<int> layers_;
};

}  // namespace prefill
