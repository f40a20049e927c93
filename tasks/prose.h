// The long English prose that tasks take when the user gives no text of their own.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "core/config/fields.h"

namespace prefill {

/// A text file read whole.
struct Prose {
  std::string text;           ///< UTF-8
  nlohmann::json provenance;  ///< {"file": name, "sha256": ...}
};

/// The file, or when it names none the prose that scripts/fetch_prose.py leaves in the cache folder.
/// `parameter` names the task's parameter in messages. Throws Unsupported when there is neither, InputError
/// when the file can not be read or is not UTF-8 (with the byte).
Prose read_prose(const Path& file, const std::string& parameter);

/// Where the default prose lies: $PREFILLBENCH_HOME/prose/austen.txt.
std::string default_prose_path();

}  // namespace prefill
