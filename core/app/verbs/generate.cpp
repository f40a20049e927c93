// `generate`: samples of a generated task as InfiniteBench-format JSON lines.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/app/tokenizer_folder.h"
#include "core/app/verb.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "core/run/experiment.h"
#include "core/task.h"
#include "core/text/tokenizer.h"

namespace prefill {
namespace {

struct GenerateOptions {
  std::string task, model, out;
  int64_t tokens = 4096, count = 5;
  uint64_t seed = 1;
  std::vector<std::string> set;
};

std::string generated_names() {
  std::string out;
  for (const auto& [name, info] : tasks().all())
    if (info.generated) out += (out.empty() ? "" : ", ") + name;
  return out;
}

int generate(const GenerateOptions& o) {
  const TaskInfo& info = tasks().at(o.task);
  if (!info.generated)
    throw InputError(
        str("task '", o.task, "' reads its samples from a file; generated are: ", generated_names()));

  Located given;
  given.kind = Located::map;
  for (const std::string& pair : o.set) {
    const size_t eq = pair.find('=');
    if (eq == std::string::npos || eq == 0) throw InputError(str("--set wants key=value, not '", pair, "'"));
    Diagnostics problems;
    Located value = parse_yaml(pair.substr(eq + 1), "--set " + pair, problems);
    if (!problems.empty()) throw InputError(problems[0].print());
    Located key;
    key.kind = Located::scalar;
    key.text = pair.substr(0, eq);
    given.entries.emplace_back(std::move(key), std::move(value));
  }
  Diagnostics problems;
  const ParamsHandle params = info.read({&given}, "--set", "", problems);
  if (!problems.empty()) {
    std::string all;
    for (const auto& p : problems) all += (all.empty() ? "" : "\n") + p.text;
    throw InputError(all);
  }
  if (!params.invalid.empty()) throw InputError(str(o.task, ": ", params.invalid));

  // a folder with nothing but a tokenizer will do
  const auto tokenizer = load_tokenizer(tokenizer_folder(o.model));
  TaskRequest request;
  request.tokens = o.tokens;
  request.count = o.count;
  request.seed = o.seed;
  request.tokenizer = tokenizer.get();
  const auto task = info.make(params, request);
  std::string text;
  for (int64_t i = 0; i < task->size(); ++i) {
    const Sample sample = task->sample(i);
    nlohmann::json row = sample.record;
    row["prompt"] = sample.prompt;
    row["tokens"] = sample.tokens;
    text += row.dump() + "\n";
  }
  write_file_atomically(o.out, text);
  std::cerr << o.out << ": " << task->size() << (task->size() == 1 ? " sample of " : " samples of ") << o.task
            << ", at most " << task->max_new_tokens()
            << (task->max_new_tokens() == 1 ? " new token each\n" : " new tokens each\n");
  return exit_ok;
}

const RegisterVerb generate_verb{{
    .name = "generate",
    .doc = "Write samples of a generated task, of an exact token length",
    .file = __FILE__,
    .order = 55,
    .setup = [](CLI::App& app) -> std::function<int()> {
      auto o = std::make_shared<GenerateOptions>();
      app.add_option("--task", o->task, "generated task: " + generated_names())->required();
      app.add_option("--tokens", o->tokens,
                     "tokens of every prompt, special ones included, under the model's tokenizer")
          ->check(CLI::PositiveNumber)
          ->capture_default_str();
      app.add_option("--count", o->count, "samples")->check(CLI::PositiveNumber)->capture_default_str();
      app.add_option("--seed", o->seed, "same seed and arguments, same bytes")->capture_default_str();
      app.add_option("--model", o->model,
                     "folder with tokenizer.json or tokenizer.model, or the name of a fetched model")
          ->required();
      app.add_option("--out", o->out, "JSON lines with id, context, input, answer, options, prompt, tokens")
          ->required();
      app.add_option("--set", o->set,
                     "parameter of the task, key=value; `describe TASK` lists them; may be repeated");
      return [o] { return generate(*o); };
    },
}};

}  // namespace
}  // namespace prefill
