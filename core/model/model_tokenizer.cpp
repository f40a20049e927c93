#include "core/model/model_tokenizer.h"

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {

std::string tokenizer_misfit(const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.vocab_size() <= config.vocab) return "";
  return str("has ids up to ", tokenizer.vocab_size() - 1, ", but the model's vocabulary ends at ",
             config.vocab - 1, ": not this model's tokenizer");
}

std::unique_ptr<Tokenizer> load_model_tokenizer(const std::string& folder) {
  auto tokenizer = load_tokenizer(folder);
  const std::string misfit = tokenizer_misfit(*tokenizer, read_model_config(folder));
  if (!misfit.empty()) throw InputError(str(folder, ": the tokenizer ", misfit));
  return tokenizer;
}

}  // namespace prefill
