// calibrate: a method's offline artefact from one's own model and prompts.
#include <ATen/ATen.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/app/print.h"
#include "core/app/set_option.h"
#include "core/app/verb.h"
#include "core/base/hash.h"
#include "core/base/text.h"
#include "core/calibrate.h"
#include "core/model/model.h"
#include "core/model/model_tokenizer.h"
#include "core/run/progress.h"
#include "core/run/session.h"
#include "methods/parts/artifacts.h"

namespace prefill {
namespace {

struct CalibrateOptions {
  std::string method, model, data, out, backend = "auto", dtype = "auto";
  std::vector<std::string> set;
  int64_t tokens = 0, limit = 0;
  bool json = false;
};

/// What a row of a JSON-lines file asks the model to read.
std::string prompt_of(const nlohmann::json& row, const std::string& where) {
  auto text = [&](const char* key) {
    return row.contains(key) && row[key].is_string() ? row[key].get<std::string>() : std::string();
  };
  if (!row.is_object()) throw InputError(where + ": not a JSON object");
  const std::string prompt = text("prompt"), context = text("context"), input = text("input");
  if (!prompt.empty()) return prompt;
  if (context.empty() && input.empty())
    throw InputError(where + ": neither 'prompt' nor 'context' and 'input'");
  return context + "\n\n" + input;
}

std::vector<std::vector<int32_t>> read_prompts(const CalibrateOptions& o, const Tokenizer& tokenizer,
                                               int64_t longest) {
  std::istringstream lines(read_file(o.data));
  std::vector<std::vector<int32_t>> out;
  std::string line;
  for (int number = 1; std::getline(lines, line) && (o.limit == 0 || int64_t(out.size()) < o.limit);
       ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = str(o.data, ":", number);
    nlohmann::json row;
    try {
      row = nlohmann::json::parse(line);
    } catch (const nlohmann::json::parse_error& e) {
      throw InputError(str(where, ": not JSON (byte ", e.byte, " of the line)"));
    }
    std::vector<int32_t> ids = tokenizer.encode(prompt_of(row, where));
    if (int64_t(ids.size()) > longest) {  // the middle goes, as InfiniteBench's truncation does
      const auto head = longest / 2, tail = longest - head;
      std::vector<int32_t> cut(ids.begin(), ids.begin() + head);
      cut.insert(cut.end(), ids.end() - tail, ids.end());
      ids = std::move(cut);
    }
    out.push_back(std::move(ids));
  }
  if (out.empty())
    throw InputError(o.data +
                     ": no prompt in it (expected JSON lines with 'prompt', or 'context' and 'input')");
  return out;
}

/// Dense attention, with the calibrator looking on.
class Onlooker final : public AttentionHook {
 public:
  Onlooker(Calibrator& calibrator, const KernelBackend& backend, int prompt, Progress& progress)
      : calibrator_(calibrator),
        backend_(backend),
        clock_(backend.make_clock()),
        prompt_(prompt),
        progress_(progress) {}
  at::Tensor prefill(int layer, const Qkv& qkv) override {
    progress_.advance(layer == 0 ? 0 : double(qkv.seq_len()),
                      str("prompt ", prompt_ + 1, ", layer ", layer + 1, ", ", qkv.seq_len(), " tokens"));
    calibrator_.see({qkv, layer, qkv.seq_len(), backend_, *clock_}, prompt_);
    return backend_.attend(qkv, AttentionPlan::uniform(qkv.q_heads(), {Route::dense, 0})).out;
  }

 private:
  Calibrator& calibrator_;
  const KernelBackend& backend_;
  std::unique_ptr<StageClock> clock_;
  int prompt_;
  Progress& progress_;
};

/// Attention as a calibrator wants it.
class Planner final : public AttentionHook {
 public:
  Planner(const Calibrator::PlanOfLayer& plan, const KernelBackend& backend)
      : plan_(plan), backend_(backend), clock_(backend.make_clock()) {}
  at::Tensor prefill(int layer, const Qkv& qkv) override {
    return backend_.attend(qkv, plan_({qkv, layer, qkv.seq_len(), backend_, *clock_})).out;
  }

 private:
  const Calibrator::PlanOfLayer& plan_;
  const KernelBackend& backend_;
  std::unique_ptr<StageClock> clock_;
};

int run_calibrate(const CalibrateOptions& o) {
  const CalibratorInfo& info = calibrators().at(o.method);
  const ParamsHandle params = read_settings(info.read, "calibrate " + info.name, o.set);

  const std::string folder = resolve_model(o.model, ".");
  const auto tokenizer = load_model_tokenizer(folder);
  const auto backend = open_backend(o.backend);
  ModelOptions options;
  options.dtype = o.dtype;
  options.device = backend->device();
  const auto model = load_model(folder, options);
  const int64_t longest = o.tokens > 0 ? std::min(o.tokens, model->max_tokens()) : model->max_tokens();
  const auto prompts = read_prompts(o, *tokenizer, longest);

  const auto calibrator = info.make(params, MethodEnv{model->shape()});
  nlohmann::json lengths = nlohmann::json::array();
  double work = 0;
  for (const auto& ids : prompts) work += double(ids.size()) * model->shape().layers;
  {
    Progress progress(work, false);
    for (size_t i = 0; i < prompts.size(); ++i) {
      Onlooker hook(*calibrator, *backend, int(i), progress);
      model->prefill(prompts[i], hook);
      model->reset();
      progress.advance(double(prompts[i].size()), "");  // the last layer
      lengths.push_back(prompts[i].size());
    }
  }
  {
    Progress further(-1, false);  // how many prefills a calibrator asks for, it does not say
    calibrator->explore(int(prompts.size()), [&](int prompt, const Calibrator::PlanOfLayer& plan) {
      Planner hook(plan, *backend);
      const at::Tensor logits = model->prefill(prompts[size_t(prompt)], hook);
      model->reset();
      further.advance(1, str("further prefills, prompt ", prompt + 1));
      return logits;
    });
  }
  Calibrator::Result result = calibrator->finish(int(prompts.size()));
  result.summary["prompts"] = prompts.size();
  write_artifact(o.out,
                 {info.name,
                  model->shape(),
                  sha256_file(o.data),
                  {{"params", params.canonical}, {"prompt_tokens", lengths}, {"summary", result.summary}},
                  result.content});
  if (o.json) {
    std::cout
        << nlohmann::ordered_json{{"method", info.name}, {"out", o.out}, {"summary", result.summary}}.dump()
        << "\n";
    return exit_ok;
  }
  for (const auto& [key, value] : result.summary.items()) std::cout << key << ": " << value.dump() << "\n";
  std::cout << "written to " << o.out << "; use it with --set " << info.field << "=" << o.out << "\n";
  return exit_ok;
}

/// Every calibration with its parameters, for --help.
std::string what_there_is() {
  std::string text;
  for (const auto& [name, c] : calibrators().all()) {
    text += (text.empty() ? "" : "\n") + wrap(name + ": " + c.doc, 2) + "\n";
    std::vector<std::vector<std::string>> rows;
    for (const FieldInfo& f : c.schema) rows.push_back({"  " + f.name + " = " + f.fallback.dump(), f.doc});
    text += table(rows, 100);
  }
  return text;
}

const RegisterVerb calibrate_verb(
    {.name = "calibrate",
     .doc = "make a method's offline artefact from a model and prompts",
     .file = __FILE__,
     .order = 64,
     .setup = [](CLI::App& app) -> std::function<int()> {
       const auto o = std::make_shared<CalibrateOptions>();
       app.footer("What there is to calibrate, with its parameters (--set key=value):\n\n" + what_there_is());
       app.add_option("method", o->method, "what to calibrate, see below")->required();
       app.add_option("--model", o->model, "Hugging Face folder, or the name of a fetched model")->required();
       app.add_option("--data", o->data,
                      "JSON lines: 'prompt', or 'context' and 'input' (as generate writes)")
           ->required();
       app.add_option("--out", o->out, "artefact to write (JSON)")->required();
       app.add_option("--set", o->set, "parameter of the calibration, key=value; may be repeated");
       app.add_option("--tokens", o->tokens,
                      "cut longer prompts to this many tokens (the middle goes); default: the model's limit");
       app.add_option("--limit", o->limit, "use the first so many prompts");
       app.add_option("--backend", o->backend, "backend; see 'prefillbench list backends'")
           ->capture_default_str();
       app.add_option("--dtype", o->dtype, "auto, float32, bfloat16 or float16")->capture_default_str();
       app.add_flag("--json", o->json, "print the summary as JSON");
       return [o] { return run_calibrate(*o); };
     }});

}  // namespace
}  // namespace prefill
