// Tokenizers from a sentencepiece tokenizer.model.
#pragma once
#include <memory>
#include <string>

#include "core/text/tokenizer.h"
#include "core/text/tokenizer_config.h"

namespace prefill {

/// The model decides about text; tokens of added_tokens_decoder, added_tokens.json and the named special
/// tokens of tokenizer_config.json are recognised inside it. BOS comes first unless add_bos_token is false,
/// EOS last when add_eos_token is true (transformers' Llama tokenizer). Text behind an added token gets no
/// dummy blank, except with "legacy": true. Throws InputError naming the file.
std::unique_ptr<Tokenizer> read_sentencepiece_tokenizer(const std::string& path,
                                                        const TokenizerConfig& config);

}  // namespace prefill
