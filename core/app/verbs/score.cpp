// `score`: existing predictions of one task, under a scoring profile.
#include <filesystem>
#include <fmt/format.h>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/app/verb.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/scoring/predictions.h"

namespace prefill {
namespace {

struct ScoreOptions {
  std::string task, predictions, profile = "official", model_name;
  bool per_example = false, json = false;
};

int score(const ScoreOptions& o) {
  namespace fs = std::filesystem;
  std::string model = o.model_name;
  if (model.empty()) model = fs::absolute(o.predictions).parent_path().filename().string();
  const scoring::Scorer scorer(o.task, o.profile, model);
  if (fs::is_directory(o.predictions))
    throw InputError(str(o.predictions, ": is a folder; a JSONL file of predictions is expected"));
  const scoring::FileScore result =
      scoring::score_file(o.predictions, scorer, [&](const scoring::BadRow& bad) {
        std::cerr << o.predictions << ":" << bad.line << ": " << bad.what << "; scored 0\n";
      });
  for (const auto& remark : result.remarks)
    std::cerr << o.predictions << ":" << remark.line << ": note: " << remark.what << "\n";
  if (o.json) {
    nlohmann::ordered_json out{{"task", o.task},
                               {"profile", o.profile},
                               {"metric", scorer.metric()},
                               {"n", result.n},
                               {"score", result.score}};
    if (scorer.ruler())
      out["score_percent"] = std::stod(fmt::format("{:.2f}", result.score * 100));  // as RULER prints it
    if (o.per_example) out["per_example"] = result.per_example;
    out["errors"] = nlohmann::ordered_json::array();
    for (const auto& bad : result.bad) out["errors"].push_back({{"line", bad.line}, {"error", bad.what}});
    std::cout << out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  } else {
    if (o.per_example)
      for (size_t i = 0; i < result.per_example.size(); ++i)
        std::cout << i << "\t" << number_text(result.per_example[i]) << "\n";
    std::cout << o.task << ": " << number_text(result.score) << " (" << scorer.metric() << ", profile "
              << o.profile << ", n = " << result.n;
    if (!result.bad.empty()) std::cout << ", " << result.bad.size() << " bad rows counted as 0";
    std::cout << ")\n";
  }
  return result.bad.empty() ? exit_ok : exit_some_failed;
}

const RegisterVerb score_verb{{
    .name = "score",
    .doc = "Score a file of predictions of one task",
    .file = __FILE__,
    .order = 60,
    .setup = [](CLI::App& app) -> std::function<int()> {
      auto o = std::make_shared<ScoreOptions>();
      app.add_option("--task", o->task,
                     "task, such as passkey, longbook_qa_eng, ruler/vt; `list tasks` names them")
          ->required();
      app.add_option("--predictions", o->predictions,
                     "JSON lines with id, prediction (or pred), ground_truth (or label)")
          ->required();
      app.add_option("--profile", o->profile,
                     "official, official-88b3daa, minference, shareprefill, flexprefill")
          ->capture_default_str();
      app.add_option("--model-name", o->model_name,
                     "what the official scorer would call the model; math_calc looks for 'gpt4' (default: "
                     "name of the file's folder)");
      app.add_flag("--per-example", o->per_example, "one score per row, in file order");
      app.add_flag("--json", o->json, "print one JSON object");
      app.footer(
          "A row that the profile would raise on is named on stderr, counts 0, and the exit code is 1.");
      return [o] { return score(*o); };
    },
}};

}  // namespace
}  // namespace prefill
