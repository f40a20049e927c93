// Scores a prediction file row by row (specification 1.5): streams, and goes on after a bad row.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tasks/scoring/scorer.h"

namespace prefill::scoring {

struct BadRow {
  int64_t line;  ///< from 1
  std::string what;
};
struct FileScore {
  int64_t n = 0;                    ///< rows, bad ones included
  double score = 0;                 ///< sum in file order / n, as the released scorers add
  std::vector<double> per_example;  ///< in file order, 0 for bad rows
  std::vector<BadRow> bad;
  std::vector<BadRow> remarks;  ///< repeated ids: scored as they stand, worth knowing
};

/// Reads JSON lines {"id", "prediction", "ground_truth"}. Blank lines are skipped; the label key is the first
/// of the scorer's that the first row has, rows lacking it get "XXXXXXXXXX"; "pred" stands in for
/// "prediction". A row that is not such an object, or that the profile would raise on, is listed in `bad` and
/// counts 0. Lines end as in Python's text mode (\n, \r\n, \r). `bad_row` hears of each as it is met. Throws
/// InputError when the file can not be read or has no rows.
FileScore score_file(const std::string& path, const Scorer& scorer,
                     const std::function<void(const BadRow&)>& bad_row = {});

}  // namespace prefill::scoring
