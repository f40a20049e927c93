// The tokenizer of a model folder, and whether it belongs to the model in it.
#pragma once
#include <memory>
#include <string>

#include "core/model/config.h"
#include "core/text/tokenizer.h"

namespace prefill {

/// load_tokenizer() for a folder whose model will read the ids. Throws InputError naming the folder also when
/// there are ids that the model has no embedding for.
std::unique_ptr<Tokenizer> load_model_tokenizer(const std::string& folder);

/// What shows that the tokenizer is another model's: "has ids up to ..."; "" when it fits.
std::string tokenizer_misfit(const Tokenizer&, const ModelConfig&);

}  // namespace prefill
