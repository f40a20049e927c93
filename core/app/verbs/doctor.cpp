// doctor: what this machine has and lacks, and the command that mends it.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/app/print.h"
#include "core/app/verb.h"
#include "core/backend.h"
#include "core/base/build_info.h"
#include "core/method.h"
#include "core/model/inspect.h"
#include "core/results/machine.h"
#include "core/run/experiment.h"
#include "core/task.h"
#include "tasks/prose.h"

namespace prefill {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

/// mend: the command or setting that helps; "" when nothing is wrong.
struct Finding {
  ModelFinding::Level level;
  std::string what, mend;
};

void find_machine(std::vector<Finding>& out) {
  const MachineFacts m = machine_facts();
  std::string isa;
  for (const auto& name : m.isa) isa += " " + name;
  out.push_back({ModelFinding::ok,
                 str("processor: ", m.cpu, ", ", m.cores, " usable cores,",
                     isa.empty() ? " no vector extensions the kernels know" : isa),
                 ""});
  const bool roomy = m.available_bytes > (int64_t(2) << 30);
  out.push_back({roomy ? ModelFinding::ok : ModelFinding::warning,
                 str("memory: ", m.available_bytes >> 20, " MiB free of ", m.memory_bytes >> 20, " MiB"),
                 roomy ? "" : "close other programs: a 135M model at 8K tokens needs about 1.5 GiB"});
}

void find_backends(std::vector<Finding>& out) {
  for (const auto& [name, b] : backends().all()) {
    const Support s = b.available();
    out.push_back({s ? ModelFinding::ok : ModelFinding::warning,
                   str("backend ", name, ": ", s ? b.doc : "not available"), s.why});
  }
}

void find_cache(std::vector<Finding>& out) {
  std::error_code error;
  fs::path there = cache_home();
  while (!fs::exists(there, error) && there.has_parent_path() && there != there.parent_path())
    there = there.parent_path();
  if (access(there.c_str(), W_OK) != 0)
    out.push_back({ModelFinding::error, there.string() + " can not be written",
                   "set PREFILLBENCH_HOME to a folder of yours"});
  if (const auto space = fs::space(there, error); !error) {
    const bool roomy = space.available > (uintmax_t(1) << 30);
    out.push_back(
        {roomy ? ModelFinding::ok : ModelFinding::warning,
         str("disk at ", cache_home(), ": ", space.available >> 20, " MiB free"),
         roomy ? ""
               : "free some space or point PREFILLBENCH_HOME elsewhere: fetching a model needs 0.8 GiB"});
  }
  bool any = false;
  for (const auto& entry : fs::directory_iterator(cache_home(), error)) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    any = true;
    out.push_back(
        {ModelFinding::ok, str("model ", entry.path().filename().string(), ": ", entry.path().string()), ""});
  }
  if (!any)
    out.push_back({ModelFinding::error, "no model was fetched yet",
                   "scripts/fetch_model.py smollm2-135m-instruct-128k, or name the folder of your own "
                   "Hugging Face checkpoint under 'model:'"});
}

void find_data(std::vector<Finding>& out) {
  const char* data = std::getenv("PREFILLBENCH_INFINITEBENCH");
  const bool there = data && fs::is_directory(data);
  out.push_back({there ? ModelFinding::ok : ModelFinding::warning,
                 str("InfiniteBench data: ", data ? data : "PREFILLBENCH_INFINITEBENCH is not set"),
                 there ? ""
                       : "the generated tasks run without it; for the others set it to the folder of "
                         "passkey.jsonl and its siblings"});
  const bool prose = fs::exists(default_prose_path());
  out.push_back({prose ? ModelFinding::ok : ModelFinding::warning,
                 str("prose: ", default_prose_path(), prose ? "" : " is not there"),
                 prose ? ""
                       : "scripts/fetch_prose.py, or name a text of yours in the YAML: RULER's essay tasks, "
                         "perplexity and agreement read it"});
}

/// Weights that are read to the end without being asked: a minute from a slow disk, seconds from memory.
constexpr uint64_t kReadUpTo = 4ull << 30;

int doctor(const std::string& model, bool as_json, bool full) {
  std::vector<Finding> found;
  if (model.empty()) {
    find_machine(found);
    find_backends(found);
    find_cache(found);
    find_data(found);
  } else {
    for (const ModelFinding& f : check_model_folder(resolve_model(model, ""), full ? UINT64_MAX : kReadUpTo))
      found.push_back({f.level, f.what + ": " + f.detail, ""});
  }
  bool wrong = false;
  json all = json::array();
  for (const auto& f : found) {
    wrong |= f.level == ModelFinding::error;
    static constexpr const char* names[] = {"ok", "warning", "error"};
    all.push_back({{"level", names[f.level]}, {"what", f.what}, {"mend", f.mend}});
  }
  if (as_json) {
    std::cout << json{{"build", build_info().summary()}, {"findings", all}}.dump(1) << "\n";
    return wrong ? exit_bad_input : exit_ok;
  }
  if (model.empty())
    std::cout << build_info().summary() << "\n"
              << methods().all().size() << " methods, " << tasks().all().size() << " tasks\n";
  for (const auto& f : found) {
    static constexpr const char* marks[] = {"  ok     ", "  note   ", "  WRONG  "};
    std::cout << marks[f.level] << wrap(f.what, 9) << "\n";
    if (!f.mend.empty()) std::cout << "         -> " << wrap(f.mend, 12) << "\n";
  }
  return wrong ? exit_bad_input : exit_ok;
}

const RegisterVerb verb{
    Verb{.name = "doctor",
         .doc = "Say what this machine (or a model folder) has and lacks, and what mends it",
         .file = __FILE__,
         .order = 12,
         .setup = [](CLI::App& app) {
           auto model = std::make_shared<std::string>();
           auto as_json = std::make_shared<bool>(false);
           auto full = std::make_shared<bool>(false);
           CLI::Option* folder = app.add_option(
               "--model", *model,
               "check a checkpoint folder instead: tensors, shapes, NaN, tokenizer, memory by length");
           app.add_flag("--full", *full, "read weights of more than 4 GiB for NaN and infinity, too")
               ->needs(folder);
           app.add_flag("--json", *as_json, "print JSON");
           return [=] { return doctor(*model, *as_json, *full); };
         }}};

}  // namespace
}  // namespace prefill
