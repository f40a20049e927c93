// From runs to the points of a Pareto figure: one panel per (model, length, machine), one point per method
// setting, one slice per task and one over all tasks.
#pragma once
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/report/frontier.h"
#include "core/report/result_set.h"
#include "core/report/stats.h"

namespace prefill {

/// The costs a score is drawn against.
enum class Axis { ttft, attention, density };
inline constexpr std::array<Axis, 3> all_axes = {Axis::ttft, Axis::attention, Axis::density};
/// "ttft", "attention", "density".
std::string to_string(Axis axis);

/// Numbers of one method setting in one slice. Times in seconds, densities and scores as fractions. Averages
/// over tasks weight every task alike: mean of per-task means (scores, densities) or medians (times, ratios).
struct PointStats {
  int n = 0;              ///< samples that were measured
  int expected = 0;       ///< samples that any setting of the panel has for these tasks
  int tasks_covered = 0;  ///< tasks of the slice with at least one of them
  Estimate score;
  Estimate score_vs_dense;             ///< paired difference over the samples that both answered
  int changed = 0;                     ///< samples whose score differs from dense's
  double p_vs_dense = 1;               ///< sign-flip permutation test of the same pairs
  Verdict verdict = Verdict::unclear;  ///< of score_vs_dense
  Estimate ttft, attention, density;
  Estimate speedup_ttft, speedup_attention;  ///< dense / method, per sample and round
  std::array<FrontierClass, 3> frontier{FrontierClass::not_compared, FrontierClass::not_compared,
                                        FrontierClass::not_compared};
  std::vector<int> same_within_noise;  ///< other points whose score and attention intervals both overlap

  const Estimate& cost(Axis axis) const;
};

/// One method setting of a panel.
struct PanelPoint {
  std::string key;  ///< RunData::point_key
  std::string method, label, backend;
  int version = 1;
  nlohmann::json params;
  bool baseline = false;    ///< dense attention
  bool from_pairs = false;  ///< dense was not a run of its own: taken from the paired baseline of the others
  std::string series;       ///< points of equal series are joined by a line, in order of knob_value
  double knob_value = 0;    ///< of the numeric parameter that varies most within the method
  std::string
      knob;  ///< names of all parameters in which the method's points differ: "gamma", "slash/vertical"
  std::string short_label;                 ///< their values here: "0.95", "1500/500"
  std::map<std::string, double> stages_s;  ///< median per stage, seconds, mean over tasks
  double decode_s = -1;                    ///< median, negative when not recorded
  double device_peak_bytes = -1;           ///< maximum over samples, negative when not recorded
  std::set<std::string> kernels;
  std::vector<std::string> run_ids;
};

/// One task of a panel, or all of them.
struct Slice {
  std::string task;               ///< "" for the mean over all tasks
  std::vector<PointStats> stats;  ///< parallel to Panel::points
};

struct Panel {
  std::string model, model_sha, dtype, hardware, hardware_name;
  int64_t tokens = 0;
  int threads = 0;
  std::vector<std::string> tasks;
  std::vector<PanelPoint> points;  ///< dense first, then by method and knob
  std::vector<Slice> slices;       ///< the mean over tasks first; then one per task when there are several
  std::string title() const;       ///< "smollm2-135m, 4096 tokens"
};

/// Groups runs into panels, ordered by model, machine and length. `score_margin`: differences to dense whose
/// interval lies inside it are the SAME.
std::vector<Panel> build_panels(const std::vector<RunData>& runs, double score_margin);

/// Where a method starts to pay: the length at which the median speed-up over dense crosses 1, interpolated
/// on log(length) between the measured lengths.
struct BreakEven {
  std::string model, hardware, dtype, label, method;
  Axis axis = Axis::ttft;
  enum Kind { crosses, always_faster, never_faster, one_length } kind = one_length;
  double tokens = 0;                  ///< for `crosses`
  int64_t shortest = 0, longest = 0;  ///< measured lengths
};
std::vector<BreakEven> break_even(const std::vector<Panel>& panels);

}  // namespace prefill
