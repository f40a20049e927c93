#include "tasks/prose.h"

#include <filesystem>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/text.h"
#include "core/run/experiment.h"
#include "tasks/scoring/unicode.h"

namespace prefill {
namespace fs = std::filesystem;

std::string default_prose_path() { return cache_home() + "/prose/austen.txt"; }

Prose read_prose(const Path& file, const std::string& parameter) {
  const std::string path = file.text.empty() ? default_prose_path() : file.text;
  if (file.text.empty() && !fs::exists(path))
    throw Unsupported(str("prose is needed and ", path, " is not there: run scripts/fetch_prose.py, or set ",
                          parameter, " to a UTF-8 text of yours, such as a book"));
  Prose out;
  out.text = read_file(path);
  if (const size_t bad = scoring::invalid_utf8(out.text); bad != std::string::npos)
    throw InputError(str(path, ": not UTF-8 at byte ", bad));
  out.provenance = {{"file", fs::path(path).filename().string()}, {"sha256", sha256_hex(out.text)}};
  return out;
}

}  // namespace prefill
