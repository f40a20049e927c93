// One official JSONL file: an index of its lines, rows parsed when asked for (the largest file has 870 MB).
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace prefill::infinitebench {

class Dataset {
 public:
  /// Scans for line ends only. Throws InputError when the file can not be read or has no rows. Blank lines
  /// are skipped.
  explicit Dataset(std::string path);
  int64_t size() const { return int64_t(lines_.size()); }
  /// Row `index` (from 0, in file order): its id, context, content, input, answer and options, as far as it
  /// has them. Read as Python reads JSON, NaN and repeated keys included. Throws InputError naming file, line
  /// and byte when it is not UTF-8, not JSON or not an object, and naming the field whose text has half of a
  /// surrogate pair.
  nlohmann::json row(int64_t index) const;
  int64_t line_number(int64_t index) const { return lines_[size_t(index)].number; }  ///< from 1
  int64_t bytes(int64_t index) const { return lines_[size_t(index)].bytes; }
  const std::string& path() const { return path_; }
  /// "file.jsonl:12"
  std::string place(int64_t index) const;

 private:
  struct Line {
    int64_t offset, bytes, number;
  };
  std::string path_;
  std::vector<Line> lines_;
};

/// `count` of the rows, in file order: the first ones; or, "by-length", one of each of `count` strata of rows
/// sorted by their size in bytes, drawn with `seed`. count <= 0 or >= size: all rows.
std::vector<int64_t> choose_rows(const Dataset& data, int64_t count, const std::string& sampling,
                                 uint64_t seed);

}  // namespace prefill::infinitebench
