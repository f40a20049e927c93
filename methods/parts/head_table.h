// One number per (layer, query head), from a file: published threshold tables and calibrated ones.
#pragma once
#include <string>
#include <vector>

namespace prefill {

struct HeadTable {
  std::vector<std::vector<double>> rows;  ///< [layers][query heads]
  const std::vector<double>& layer(int index) const { return rows.at(size_t(index)); }
};

/// Reads a table of layers x q_heads numbers in [lo, hi]. Formats:
///   .json  a list of lists, or an object whose "thresholds" is one (calibrated files carry "model", "layers" and
///          "q_heads" beside it, which must fit when they are there)
///   .py    assignments of nested lists, as XAttention publishes them (llama_threshold.py); the one whose name ends
///          in _<variant> is taken ("llama_fuse_16" for variant 16)
/// Throws InputError naming the file, the place and what would be right.
HeadTable read_head_table(const std::string& path, const std::string& variant, int layers, int q_heads, double lo,
                          double hi);

}  // namespace prefill
