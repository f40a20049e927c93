// Offline artefacts of methods (head patterns, clusters, thresholds): JSON files with a header that says for
// which model they were made, so that they are refused for another one. Files in the formats that the papers'
// authors published have no header; their readers check what can be checked (layers, heads).
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "core/method.h"

namespace prefill {

/// {"schema": 1, "method": ..., "model": {"id", "fingerprint", "layers", "q_heads", "kv_heads", "head_dim"},
///  "data_sha256": ..., "settings": {...}, "content": {...}}; no "fingerprint" when it is not known
struct Artifact {
  std::string method;
  ModelShape model;
  std::string data_sha256;  ///< of the prompts it was calibrated on
  nlohmann::json settings;  ///< of the calibration
  nlohmann::json content;   ///< the method's own
};

/// Writes by rename; the folder must exist.
void write_artifact(const std::string& path, const Artifact&);

/// True when the JSON is an Artifact rather than a published format.
bool is_artifact(const nlohmann::json& file);

/// Checks the header against the method and the model at hand (layers, heads, head_dim, and the fingerprint
/// of the weights where both sides have one; the id is not compared, so that a renamed folder keeps its
/// artefacts) and returns the content. Throws InputError naming the file and what differs.
nlohmann::json artifact_content(const nlohmann::json& file, const std::string& path,
                                const std::string& method, const ModelShape& model);

}  // namespace prefill
