// One number per (layer, query head), from a file: published threshold tables and calibrated ones.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/method.h"

namespace prefill {

struct HeadTable {
  std::vector<std::vector<double>> rows;  ///< [layers][query heads]
  const std::vector<double>& layer(int index) const { return rows.at(size_t(index)); }
  double mean() const;
  /// `value` for every head.
  static HeadTable filled(const ModelShape&, double value);
};

/// Reads a table of layers x q_heads numbers in [0, 1]. Formats:
///   artefact of `method` (methods/parts/artifacts.h) whose content is the object below
///   .json  a list of lists, or an object whose "thresholds" is one. Fields beside it that have a name of
///   `settings`
///          (what the numbers depend on), or are called "layers" or "q_heads", must have the value they have
///          here
///   .py    assignments of nested lists, as XAttention publishes them (llama_threshold.py); the one whose
///   name ends
///          in _<variant> is taken ("llama_fuse_16" for variant 16)
/// Throws InputError naming the file, the place and what would be right.
HeadTable read_head_table(const std::string& path, const std::string& variant, const std::string& method,
                          const ModelShape& model, const nlohmann::json& settings);

}  // namespace prefill
