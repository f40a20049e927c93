#include "tasks/scoring/scorer.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

const std::vector<std::string> infinitebench_tasks{
    "passkey",          "number_string",       "kv_retrieval",    "longdialogue_qa_eng",
    "longbook_sum_eng", "longbook_choice_eng", "longbook_qa_eng", "longbook_qa_chn",
    "math_find",        "math_calc",           "code_run",        "code_debug"};
const std::vector<std::string> ruler_tasks{"niah_single_1",
                                           "niah_single_2",
                                           "niah_single_3",
                                           "niah_multikey_1",
                                           "niah_multikey_2",
                                           "niah_multikey_3",
                                           "niah_multivalue",
                                           "niah_multiquery",
                                           "vt",
                                           "cwe",
                                           "fwe",
                                           "qa_1",
                                           "qa_2"};

bool in(const std::vector<std::string>& list, const std::string& name) {
  for (const auto& x : list)
    if (x == name) return true;
  return false;
}

}  // namespace

const std::vector<std::string>& profile_names() {
  static const std::vector<std::string> names{"official", "official-88b3daa", "minference", "shareprefill",
                                              "flexprefill"};
  return names;
}

Profile profile_of(const std::string& name) {
  for (size_t i = 0; i < profile_names().size(); ++i)
    if (profile_names()[i] == name) return Profile(i);
  throw InputError(str("unknown scoring profile '", name, "'", did_you_mean(name, profile_names()),
                       "; there are official, official-88b3daa, minference, shareprefill, flexprefill"));
}

std::vector<std::string> scored_tasks() {
  std::vector<std::string> out = infinitebench_tasks;
  out.push_back("needle_multikey");
  for (const auto& t : ruler_tasks) out.push_back("ruler/" + t);
  return out;
}

Scorer::Scorer(const std::string& given, const std::string& profile_name, std::string model_name) {
  const Profile profile = profile_of(profile_name);
  const bool flex = profile == Profile::flexprefill;
  label_keys_ = {"ground_truth", "label"};
  std::string task = given.starts_with("infinitebench/") ? given.substr(14) : given;
  if (task == "kv_retrieval_prefix" || task == "kv_retrieval_both")
    task = "kv_retrieval";  // official aliases

  if (task == "needle_multikey" || (task.starts_with("ruler/") && in(ruler_tasks, task.substr(6)))) {
    const bool all = !task.starts_with("ruler/qa_");
    ruler_ = true;
    metric_ = all ? "string match (all)" : "string match (part)";
    label_keys_.push_back("outputs");  // RULER's own name
    rule_ = [all](const Value& p, const Value& l) { return score_string_match(p, l, all); };
    return;
  }
  if (!in(infinitebench_tasks, task))
    throw InputError(str("no scorer for task '", given, "'", did_you_mean(given, scored_tasks()),
                         "; `prefillbench list tasks` names them"));

  // FlexPrefill's label, once it has gone through its data-set schema.
  auto through_schema = [flex](auto rule) {
    return [flex, rule](const Value& p, const Value& l) -> double {
      return flex ? rule(p, flexprefill_label(l)) : rule(p, l);
    };
  };
  if (task == "passkey" || task == "number_string") {
    metric_ = "first digits equal";
    rule_ = through_schema(score_digits);
  } else if (task == "kv_retrieval") {
    metric_ = "value among the words";
    rule_ = [profile](const Value& p, const Value& l) { return score_kv(profile, p, l); };
  } else if (task == "longdialogue_qa_eng") {
    metric_ = flex ? "name is a substring" : "first name among the words";
    rule_ = flex ? through_schema(score_dialogue_substring) : through_schema(score_dialogue);
  } else if (task == "longbook_sum_eng") {
    metric_ = "rougeLsum F";
    rule_ = [flex](const Value& p, const Value& l) {
      return score_summary(p, flex ? flexprefill_label(l).at(0, "label") : l);
    };
  } else if (task == "longbook_choice_eng") {
    metric_ = "option";
    rule_ = through_schema(score_choice);
  } else if (task == "longbook_qa_eng") {
    metric_ = "word F1";
    rule_ = through_schema(score_qa_english);
  } else if (task == "longbook_qa_chn") {
    metric_ = "character F1";
    rule_ = through_schema(score_qa_chinese);
  } else if (task == "math_find") {
    metric_ = "first number equal";
    rule_ =
        through_schema([profile](const Value& p, const Value& l) { return score_math_find(profile, p, l); });
  } else if (task == "math_calc") {
    if (flex)
      throw InputError("profile flexprefill has no scorer for math_calc: FlexPrefill does not run that task");
    metric_ = "correct prefix";
    rule_ = [profile, model_name](const Value& p, const Value& l) {
      return score_math_calc(profile, p, l, model_name);
    };
  } else if (task == "code_run") {
    metric_ = "last integer equal";
    rule_ = [flex](const Value& p, const Value& l) {
      if (!flex) return score_code_run(p, l);
      auto wanted = python_int(flexprefill_label(l).at(0, "label").string);
      if (!wanted) throw PythonError{"the label is not an integer"};
      Value label;
      label.kind = Value::integer;
      label.digits = *wanted;
      return score_code_run(p, label);
    };
  } else {
    metric_ = "option";
    rule_ = through_schema(score_code_debug);
  }
}

Score Scorer::score(const Value& prediction, const Value& label) const {
  Score out;
  out.metric = metric_;
  try {
    out.value = rule_(prediction, label);
  } catch (const PythonError& e) {
    out.error = e.what;
  }
  return out;
}

Score Scorer::score(const std::string& prediction, const nlohmann::json& label) const {
  Value text;
  text.kind = Value::text;
  if (size_t bad = invalid_utf8(prediction); bad != std::string_view::npos) {
    // A decoder that stopped inside a character: Python's tokenizers put U+FFFD there.
    std::string mended;
    for (std::string_view rest = prediction; !rest.empty();) {
      size_t good = std::min(invalid_utf8(rest), rest.size());
      mended += rest.substr(0, good);
      if (good < rest.size()) mended += "\xEF\xBF\xBD";
      rest.remove_prefix(std::min(rest.size(), good + 1));
    }
    text.string = decode_utf8(mended);
  } else {
    text.string = decode_utf8(prediction);
  }
  return score(text, Value::from_json(label));
}

}  // namespace prefill::scoring
