#include "core/report/draw.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "core/base/build_info.h"
#include "core/base/program.h"
#include "core/base/text.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;

bool executable(const fs::path& p) { return access(p.c_str(), X_OK) == 0; }

}  // namespace

std::string find_draw_script() {
  for (const fs::path& p :
       {program_folder() / "share" / "draw.py", fs::path(build_info().source_tree) / "scripts" / "draw.py"})
    if (fs::exists(p)) return p.string();
  return "";
}

std::string find_python() {
  if (const char* chosen = std::getenv("PREFILLBENCH_PYTHON"); chosen && *chosen) return chosen;
  for (const fs::path& p : {fs::path(build_info().source_tree) / ".venv" / "bin" / "python",
                            program_folder() / ".venv" / "bin" / "python"})
    if (executable(p)) return p.string();
  return "python3";
}

std::string run_draw(const std::vector<std::string>& arguments) {
  const std::string script = find_draw_script(), python = find_python();
  if (script.empty())
    return "draw.py was not found beside the program (share/) nor in its source tree (scripts/)";
  std::vector<std::string> words = {python, script};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const Finished done = run_program(words);
  if (!done.started) return str(python, " can not be started: ", done.why, "; set PREFILLBENCH_PYTHON");
  if (done.status == 0) return "";
  if (done.status == 127) return str(python, " is not there; set PREFILLBENCH_PYTHON");
  return str(script, " failed (", python, "); its message is above");
}

}  // namespace prefill
