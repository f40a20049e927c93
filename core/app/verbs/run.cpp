// check, plan, run: an experiment file from reading to measuring.
#include <ATen/ATen.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/app/print.h"
#include "core/app/verb.h"
#include "core/base/text.h"
#include "core/model/config.h"
#include "core/results/store.h"
#include "core/run/progress.h"
#include "core/run/runner.h"
#include "core/run/session.h"

namespace prefill {
namespace {
using nlohmann::json;

void say(const Diagnostics& all) {
  for (const Diagnostic& d : all) std::cerr << d.print() << "\n";
}

/// Prints every mistake and returns false when there is one.
bool none(const Diagnostics& bad) {
  say(bad);
  if (!bad.empty())
    std::cerr << bad.size() << (bad.size() == 1 ? " mistake" : " mistakes") << "; nothing was run\n";
  return bad.empty();
}

/// Reads the file; prints every mistake and returns false when there is one.
bool read(const std::string& file, Experiment& e, bool quick = false) {
  Diagnostics bad;
  e = read_experiment(file, bad, quick);
  return none(bad);
}

/// Lengths past the model's context are no mistake, since other samples may fit, but worth a line each.
/// new_tokens: what an answer to the workload may add.
Diagnostics long_workloads(const Experiment& e, int64_t context,
                           const std::function<int64_t(size_t)>& new_tokens) {
  Diagnostics notes;
  for (size_t i = 0; i < e.workloads.size(); ++i) {
    const WorkloadSpec& w = e.workloads[i];
    const int64_t more = new_tokens(i);
    if (w.tokens + more <= context) continue;
    const std::string answer = more > 0 ? str(" with an answer of up to ", more) : "";
    notes.push_back({e.file, w.line, w.column,
                     str("note: ", w.label(), answer, " passes the context of ", e.model, ", ", context,
                         " tokens: what does not fit is recorded as unsupported, not measured")});
  }
  return notes;
}

/// The files that a right experiment names, and its model: mistakes into `bad`, the rest into `notes`.
void check_named(Experiment& e, Diagnostics& bad, Diagnostics& notes) {
  std::string folder;
  try {
    folder = resolve_model(e.model, std::filesystem::path(e.file).parent_path().string());
  } catch (const InputError& missing) {  // a model that is yet to be fetched
    notes.push_back(
        {e.file, e.model_place.line, e.model_place.column,
         str("note: ", missing.what(), "; until then the files of tasks and methods are not checked")});
    return;
  }
  const size_t pruned = e.pruned.size();
  bad = check_files(e, folder);
  if (!bad.empty()) return;
  notes = long_workloads(e, read_model_config(folder).context_length(), [](size_t) { return 0; });
  for (size_t i = pruned; i < e.pruned.size(); ++i)
    notes.push_back(
        {e.file, 0, 0, str("note: ", e.pruned[i].label, " would be skipped: ", e.pruned[i].reason)});
}

json to_json(const Diagnostics& all) {
  json out = json::array();
  for (const Diagnostic& d : all)
    out.push_back({{"file", d.file}, {"line", d.line}, {"column", d.column}, {"text", d.text}});
  return out;
}

json to_json(const std::vector<PrunedPoint>& pruned) {
  json out = json::array();
  for (const auto& p : pruned) out.push_back({{"method", p.label}, {"reason", p.reason}});
  return out;
}

int check_file(const std::string& file, bool as_json) {
  Diagnostics bad, notes;
  Experiment e = read_experiment(file, bad);
  if (bad.empty()) check_named(e, bad, notes);
  const int code = bad.empty() ? exit_ok : exit_bad_input;
  if (as_json) {
    std::cout << json{{"experiment", e.name},
                      {"mistakes", to_json(bad)},
                      {"notes", to_json(notes)},
                      {"method_points", e.points.size()},
                      {"workloads", e.workloads.size()},
                      {"pruned", to_json(e.pruned)}}
                     .dump(1, ' ', false, json::error_handler_t::replace)  // what is wrong may not be UTF-8
              << "\n";
    return code;
  }
  if (!none(bad)) return code;
  say(notes);
  std::cout << file << ": ok, " << e.points.size() << " method points x " << e.workloads.size()
            << " workloads";
  if (!e.pruned.empty())
    std::cout << ", " << e.pruned.size() << " points pruned (prefillbench plan says why)";
  std::cout << "\n";
  return code;
}

/// Seconds per GFLOP of the products this model is made of: the fastest of half a second (the first ones find
/// cores asleep and caches cold, others may share the machine).
double seconds_per_gflop(const Session& s) {
  const auto type = s.model->dtype() == "bfloat16"  ? at::kBFloat16
                    : s.model->dtype() == "float16" ? at::kHalf
                                                    : at::kFloat;
  const at::Tensor a = at::randn({1024, 1024}, at::kFloat).to(s.backend->device(), type),
                   b = at::randn({1024, 1024}, at::kFloat).to(s.backend->device(), type);
  double best = 1e9, spent = 0;
  do {
    const auto t0 = std::chrono::steady_clock::now();
    const at::Tensor c = at::matmul(a, b);
    s.backend->synchronize();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();
    best = std::min(best, took);
    spent += took;
  } while (spent < 0.5);
  return best / 2.147;
}

int plan_file(const std::string& file, const std::string& results, bool quick, bool as_json) {
  Experiment e;
  if (!read(file, e, quick)) return exit_bad_input;
  const Session s = open_session(e, /*alone=*/true);
  say(long_workloads(e, s.model->max_tokens(), [&](size_t w) { return s.workloads[w]->max_new_tokens(); }));
  const ModelShape shape = s.model->shape();
  const double rate = seconds_per_gflop(s);
  const double parameters = double(s.model->parameter_count());
  double total = 0;
  json runs = json::array();
  for (size_t w = 0; w < e.workloads.size(); ++w)
    for (const MethodPoint& p : e.points) {
      const json identity = identity_of(e, s, e.workloads[w], p, s.workloads[w]->max_new_tokens());
      const std::string id = run_id(identity), folder = results + "/" + e.name + "/" + id;
      const double n = double(e.workloads[w].tokens);
      const double gflop =
          2e-9 * n * parameters + 4e-9 * shape.layers * shape.q_heads * shape.head_dim * n * n / 2;
      std::set<std::string> done;
      for (const auto& record : read_samples(folder))
        if (record.value("status", "") == "ok") done.insert(record.at("sample").get<std::string>());
      const int64_t missing = std::max<int64_t>(0, s.workloads[w]->size() - int64_t(done.size()));
      const double seconds = gflop * rate * double(missing) * e.measure.repeats;
      total += seconds;
      const double bytes = parameters * (s.model->dtype() == "float32" ? 4 : 2) *
                               (1 + 2.0 * n * shape.layers * shape.kv_heads * shape.head_dim / parameters) +
                           16 * n * 8192;
      runs.push_back({{"id", id},
                      {"method", p.label},
                      {"workload", e.workloads[w].label()},
                      {"samples", s.workloads[w]->size()},
                      {"done", done.size()},
                      {"estimated_s", seconds},
                      {"estimated_bytes", bytes},
                      {"implied", p.implied}});
    }
  if (as_json) {
    std::cout << json{{"experiment", e.name},
                      {"model", s.model_identity},
                      {"backend", s.backend->name()},
                      {"dtype", s.model->dtype()},
                      {"runs", runs},
                      {"pruned", to_json(e.pruned)},
                      {"estimated_s", total}}
                     .dump(1)
              << "\n";
    return exit_ok;
  }
  std::cout << e.name << ": " << s.model_identity["name"].get<std::string>() << ", backend "
            << s.backend->name() << ", " << s.model->dtype() << ", " << s.threads << " threads\n";
  std::vector<std::vector<std::string>> rows{
      {"id", "workload", "done", "est. time", "est. memory", "method"}};
  for (const auto& r : runs)
    rows.push_back({r["id"], r["workload"], str(r["done"], "/", r["samples"]),
                    duration_text(r["estimated_s"]),
                    str(int64_t(r["estimated_bytes"].get<double>() / 1048576), " MiB"),
                    r["method"].get<std::string>() +
                        (r["implied"].get<bool>() ? " (added: every round is paired with dense)" : "")});
  std::cout << table(rows, 130);
  for (const auto& p : e.pruned) std::cout << "pruned: " << p.label << ": " << p.reason << "\n";
  std::cout << "estimated time: about " << duration_text(total)
            << " (every method as if dense, decoding not counted)\n";
  return exit_ok;
}

int run_file(const std::string& file, RunOptions options, const std::string& shard, bool quick, int ranks) {
  if (!shard.empty()) {
    int i = 0, n = 0;
    char slash = 0, rest = 0;
    if (std::sscanf(shard.c_str(), "%d%c%d%c", &i, &slash, &n, &rest) != 3 || slash != '/' || n < 1 ||
        i < 1 || i > n)
      throw InputError(str("--shard '", shard, "' must be i/n with 1 <= i <= n, as in 2/8"));
    options.shard = i - 1;
    options.shards = n;
  }
  Experiment e;
  if (!read(file, e, quick)) return exit_bad_input;
  if (ranks > 0 && ranks != e.tensor_parallel) {  // other results than the file's own: beside them
    e.tensor_parallel = ranks;
    e.name += str("-tp", ranks);
  }
  const int code = run_experiment(e, options);
  std::cerr << "results: " << options.results << "/" << e.name << "  (prefillbench report " << options.results
            << "/" << e.name << ")\n";
  return code;
}

int merge(const std::vector<std::string>& from, const std::string& out, bool as_json) {
  const auto merged = merge_results(from, out);
  json runs = json::array();
  for (const MergedRun& r : merged) {
    runs.push_back({{"run", r.run},
                    {"settled", r.settled},
                    {"samples", r.wanted},
                    {"folders", r.folders},
                    {"complete", r.complete}});
    if (!as_json)
      std::cout << r.run << ": " << r.settled << " of " << r.wanted << " samples from " << r.folders
                << (r.folders == 1 ? " folder" : " folders") << (r.complete ? "" : " (partial)") << "\n";
  }
  if (as_json) std::cout << json{{"out", out}, {"runs", runs}}.dump(1) << "\n";
  return exit_ok;
}

const RegisterVerb check_verb{
    Verb{.name = "check",
         .doc = "Read an experiment file and the files it names, and print every mistake with its place",
         .file = __FILE__,
         .order = 20,
         .setup = [](CLI::App& app) {
           auto file = std::make_shared<std::string>();
           auto as_json = std::make_shared<bool>(false);
           app.add_option("file", *file, "experiment YAML")->required();
           app.add_flag("--json", *as_json, "print JSON, mistakes included");
           return [=] { return check_file(*file, *as_json); };
         }}};
const RegisterVerb plan_verb{
    Verb{.name = "plan",
         .doc = "Show the runs an experiment expands to, what is done, time and memory; runs nothing",
         .file = __FILE__,
         .order = 21,
         .setup = [](CLI::App& app) {
           auto file = std::make_shared<std::string>(), results = std::make_shared<std::string>("results");
           auto as_json = std::make_shared<bool>(false), quick = std::make_shared<bool>(false);
           app.add_option("file", *file, "experiment YAML")->required();
           app.add_option("--results", *results, "results folder")->capture_default_str();
           app.add_flag("--quick", *quick, "the short form that the file's 'quick' block gives");
           app.add_flag("--json", *as_json, "print JSON");
           return [=] { return plan_file(*file, *results, *quick, *as_json); };
         }}};
const RegisterVerb run_verb{Verb{
    .name = "run",
    .doc = "Measure an experiment; what is already measured is kept, so it can be stopped and run again",
    .file = __FILE__,
    .order = 22,
    .setup = [](CLI::App& app) {
      auto file = std::make_shared<std::string>(), shard = std::make_shared<std::string>();
      auto options = std::make_shared<RunOptions>();
      auto quick = std::make_shared<bool>(false);
      auto ranks = std::make_shared<int>(0);
      app.add_option("file", *file, "experiment YAML")->required();
      app.add_option(
             "--tensor-parallel", *ranks,
             "processes, each on a GPU of its own, that share the model's heads; results go to NAME-tpN")
          ->check(CLI::Range(1, 64));
      app.add_option("--results", options->results, "results folder")->capture_default_str();
      app.add_option("--shard", *shard,
                     "i/n: measure the i-th of n parts of the samples, counted from 1 (for a Slurm array "
                     "1-n: $SLURM_ARRAY_TASK_ID/n); merge the folders afterwards");
      app.add_option("--only", options->only,
                     "only method labels that match this glob (dense runs along as the pair)");
      app.add_option("--budget", options->budget_s,
                     "seconds after which no further sample is begun (overrides measure.budget_s)");
      app.add_flag("--quick", *quick,
                   "the short form that the file's 'quick' block gives; results go to NAME-quick");
      app.add_flag("--quiet", options->quiet, "no progress");
      return [=] { return run_file(*file, *options, *shard, *quick, *ranks); };
    }}};
const RegisterVerb merge_verb{
    Verb{.name = "merge",
         .doc = "Union of results folders, by run and sample; the newest settled record wins",
         .file = __FILE__,
         .order = 32,
         .setup = [](CLI::App& app) {
           auto from = std::make_shared<std::vector<std::string>>();
           auto out = std::make_shared<std::string>();
           app.add_option("folders", *from, "results folders, or experiment folders in them")
               ->required()
               ->expected(-1);
           app.add_option("--out", *out, "folder to write (made when missing)")->required();
           auto as_json = std::make_shared<bool>(false);
           app.add_flag("--json", *as_json, "print JSON");
           return [=] { return merge(*from, *out, *as_json); };
         }}};

}  // namespace
}  // namespace prefill
