// Where the verbs that need a tokenizer and no weights look for it.
#pragma once
#include <filesystem>
#include <string>

#include "core/run/experiment.h"

namespace prefill {

/// A folder as it is, since a tokenizer needs no weights beside it; else the folder of a known model. Throws
/// InputError for an unknown name.
inline std::string tokenizer_folder(const std::string& model) {
  return std::filesystem::is_directory(model) ? model : resolve_model(model, ".");
}

}  // namespace prefill
