// Scores one prediction of one task under a named profile, exactly as that profile's released scorer would.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/task.h"
#include "tasks/scoring/value.h"

namespace prefill::scoring {

/// Whose rules. `official` is `official_88b3daa` (OpenBMB/InfiniteBench, revision 88b3daa) with two declared
/// repairs: key-value labels given as a list mean element 0, and integer math-find labels compare with the
/// truncated number instead of aborting on a decimal. The others reproduce the scorers that the papers'
/// numbers come from, bugs included: microsoft/MInference, opas-lab/SharePrefill, bytedance/FlexPrefill.
enum class Profile { official, official_88b3daa, minference, shareprefill, flexprefill };

/// "official", "official-88b3daa", "minference", "shareprefill", "flexprefill".
const std::vector<std::string>& profile_names();
/// Throws InputError with the nearest name.
Profile profile_of(const std::string& name);

/// The scorer of one task.
class Scorer {
 public:
  /// `task`: one of scored_tasks(), InfiniteBench's also with the prefix "infinitebench/". `model_name`: name
  /// of the folder that holds the predictions; one official rule (math_calc) looks at it. Throws InputError
  /// when there is no such task, or the profile has no scorer for it.
  Scorer(const std::string& task, const std::string& profile, std::string model_name = "");
  /// value in 0..1; `error` says why the profile would have raised (value is 0 then).
  Score score(const Value& prediction, const Value& label) const;
  Score score(const std::string& prediction, const nlohmann::json& label) const;
  const std::string& metric() const { return metric_; }
  /// Keys that may hold the label in a prediction file, in order of preference.
  const std::vector<std::string>& label_keys() const { return label_keys_; }
  bool ruler() const { return ruler_; }

 private:
  std::string metric_;
  std::vector<std::string> label_keys_;
  bool ruler_ = false;
  std::function<double(const Value&, const Value&)> rule_;
};

std::vector<std::string> scored_tasks();

}  // namespace prefill::scoring
