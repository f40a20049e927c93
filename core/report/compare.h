// Paired comparison of two sets of runs, A (before) and B (after): the same samples, one by one.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/report/result_set.h"
#include "core/report/stats.h"

namespace prefill {

struct CompareOptions {
  double score_margin = 0.02;    ///< score differences whose interval lies within ±margin are the SAME
  double time_margin = 0.03;     ///< relative; time ratios whose interval lies within it are the SAME
  bool across_hardware = false;  ///< compare times of different machines all the same
};

/// One sample whose score or status is not the same in A and B.
struct Change {
  std::string sample, task;
  int64_t tokens = 0;
  std::string before, after;  ///< score, or status when it is not ok
  std::string prediction_before, prediction_after;
  enum Kind {
    lost,
    won,
    moved,
    broken,
    mended
  } kind = moved;  ///< lost: right -> wrong; broken: ok -> not ok
};

/// Times of B over times of A on the same samples.
struct TimeComparison {
  Estimate ratio;
  Estimate ratio_to_dense;  ///< each time first divided by dense's in the same rounds: drift of the machine
                            ///< cancels
  Verdict verdict = Verdict::unclear;
  Verdict verdict_to_dense = Verdict::unclear;
};

/// One method setting at one length; all tasks ("" as task) or one.
struct ComparedPoint {
  std::string label;  ///< of A; "A label -> B label" when they differ
  std::string model, task;
  int64_t tokens = 0;
  int pairs = 0;
  Estimate score_a, score_b, difference;
  double p = 1;  ///< sign-flip permutation test
  int changed = 0;
  Verdict verdict = Verdict::unclear;
  bool times_compared = false;
  std::string times_refused;  ///< why not
  TimeComparison ttft, attention;
  Estimate density_a, density_b;
};

struct Comparison {
  std::vector<ComparedPoint> points;
  std::vector<Change> changes;
  std::vector<std::string> changes_in;  ///< parallel to changes: the label of the point
  std::vector<std::string> notes;       ///< runs of one side only, different model weights
  bool worse() const;  ///< a score or time over all tasks is WORSE, or a sample that was ok no longer is
};

/// Pairs settings by method, parameters, backend and dtype; settings left over pair when only backend, dtype
/// or version differ, or when each side has a single setting. Throws InputError when no sample occurs on both
/// sides.
Comparison compare_runs(const std::vector<RunData>& a, const std::vector<RunData>& b,
                        const CompareOptions& options);

std::string terminal_text(const Comparison& comparison, int width = 120);
nlohmann::json to_json(const Comparison& comparison);

}  // namespace prefill
