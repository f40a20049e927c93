#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/json_tokenizer.h"
#include "core/text/sentencepiece_tokenizer.h"
#include "core/text/tokenizer.h"

namespace prefill {

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& folder) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(folder))
    throw InputError(str(
        folder,
        ": no such folder; should be a Hugging Face model folder with tokenizer.json or tokenizer.model"));
  const std::string json_path = folder + "/tokenizer.json", model_path = folder + "/tokenizer.model";
  const bool has_json = fs::exists(json_path), has_model = fs::exists(model_path);
  if (!has_json && !has_model)
    throw InputError(str(folder,
                         ": has no tokenizer; should contain tokenizer.json (byte-level BPE) or "
                         "tokenizer.model (sentencepiece)"));
  const TokenizerConfig config = read_tokenizer_config(folder);
  if (!has_json) return read_sentencepiece_tokenizer(model_path, config);
  const auto document = read_json_file(json_path);
  try {
    return read_json_tokenizer(JsonView(*document, json_path), config);
  } catch (const InputError& unsupported) {
    // Both files of a folder describe the same tokenizer; either will do.
    if (!has_model) throw;
    try {
      return read_sentencepiece_tokenizer(model_path, config);
    } catch (const InputError& also) {
      throw InputError(str(unsupported.what(), "; and ", also.what()));
    }
  }
}

}  // namespace prefill
