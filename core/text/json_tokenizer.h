// Tokenizers from a tokenizer.json with a BPE model.
#pragma once
#include <memory>
#include <string>

#include "core/text/json_view.h"
#include "core/text/tokenizer.h"
#include "core/text/tokenizer_config.h"

namespace prefill {

/// GPT-2, Llama-3, Qwen2 / 2.5 / 3, SmolLM (byte-level) and sentencepiece models converted to BPE with byte
/// fallback (Llama-2, Mistral). Ids and texts are those of the `tokenizers` library. Throws InputError naming
/// the file, the path inside it and the component that is not supported.
std::unique_ptr<Tokenizer> read_json_tokenizer(const JsonView& json, const TokenizerConfig& config);

}  // namespace prefill
