// bench: the benchmark programs of the kernels that lie beside this program. Each holds a kernel against
// cpu-ref before it times it; one that is wrong has no time, and the exit status says so.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/app/verb.h"
#include "core/base/program.h"
#include "core/base/text.h"

namespace prefill {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

struct BenchOptions {
  std::string filter, folder;
  bool list = false, as_json = false, full = false;
};

/// Those that take Google Benchmark's flags, by name. bench_cuda_methods has a command line of its own.
std::vector<fs::path> programs_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("bench_", 0) == 0 && name != "bench_cuda_methods" &&
        access(entry.path().c_str(), X_OK) == 0)
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// A file of a name of its own, removed with the object.
struct ScratchFile {
  ScratchFile() {
    std::string form = (fs::temp_directory_path() / "prefillbench-bench-XXXXXX").string();
    const int fd = mkstemp(form.data());
    if (fd < 0) throw std::runtime_error(str("no file can be made in ", fs::temp_directory_path().string()));
    close(fd);
    path = form;
  }
  ~ScratchFile() { unlink(path.c_str()); }
  ScratchFile(const ScratchFile&) = delete;
  std::string path;
};

/// Runs one program and adds its measurements. -> how many kernels were wrong.
int run_one(const fs::path& program, const BenchOptions& o, json& all) {
  const ScratchFile out;
  std::vector<std::string> words{program.string(), "--benchmark_out=" + out.path,
                                 "--benchmark_out_format=json"};
  if (!o.filter.empty()) words.push_back("--benchmark_filter=" + o.filter);
  if (o.full && program.filename() == "bench_cpu_attention") words.push_back("--full");
  const Finished done = run_program(words, /*output_to_errors=*/o.as_json);
  if (!done.started) throw InputError(str(program.string(), " can not be started: ", done.why));
  if (done.status != 0)
    throw InputError(str(program.string(), " ended with status ", done.status, "; its message is above"));
  const std::string text = read_file(out.path);
  if (text.empty()) return 0;  // nothing matches the filter, or there is no GPU
  const json result = json::parse(text);
  if (!all.contains("context")) all["context"] = result.value("context", json::object());
  int wrong = 0;
  for (json row : result.value("benchmarks", json::array())) {
    wrong += row.value("error_occurred", false);
    row["program"] = program.filename().string();
    all["benchmarks"].push_back(std::move(row));
  }
  return wrong;
}

int bench(const BenchOptions& o) {
  const fs::path folder = o.folder.empty() ? program_folder() / "bench" : fs::path(o.folder);
  const std::vector<fs::path> programs = programs_in(folder);
  if (programs.empty())
    throw InputError(
        str("no benchmark programs in ", folder.string(),
            ": they are part of a build folder (cmake --build build/cpu), not of an installed one"));
  if (o.list) {
    for (const fs::path& p : programs) {
      const Finished done = run_program({p.string(), "--benchmark_list_tests=true"});
      if (!done.started) throw InputError(str(p.string(), " can not be started: ", done.why));
    }
    return exit_ok;
  }
  json all{{"benchmarks", json::array()}};
  int wrong = 0;
  for (const fs::path& p : programs) wrong += run_one(p, o, all);
  if (o.as_json) std::cout << all.dump(2) << "\n";
  if (all["benchmarks"].empty())
    throw InputError(str("no benchmark matches '", o.filter, "'; bench --list names them"));
  if (wrong > 0)
    std::cerr << wrong << " of " << all["benchmarks"].size() << " differ from cpu-ref and have no time\n";
  return wrong > 0 ? exit_some_failed : exit_ok;
}

const RegisterVerb bench_verb(
    {.name = "bench",
     .doc = "Check the kernels against cpu-ref, then time them (a few minutes; FILTER for some)",
     .file = __FILE__,
     .order = 80,
     .setup = [](CLI::App& app) -> std::function<int()> {
       auto o = std::make_shared<BenchOptions>();
       app.add_option("FILTER", o->filter,
                      "only cases whose name this regular expression finds, such as 'tiles64.*d64'");
       app.add_flag("--list", o->list, "print the names of all cases and stop");
       app.add_flag("--full", o->full, "also 4K and 16K tokens, more densities and head sizes");
       app.add_flag("--json", o->as_json, "print the measurements as JSON; progress goes to standard error");
       app.add_option("--programs", o->folder,
                      "folder of the bench_* programs; default: bench/ beside this program")
           ->type_name("DIR");
       return [=] { return bench(*o); };
     }});

}  // namespace
}  // namespace prefill
