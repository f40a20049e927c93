// What the files beside a tokenizer say: tokenizer_config.json, special_tokens_map.json, added_tokens.json.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/text/added_tokens.h"

namespace prefill {

struct TokenizerConfig {
  bool has_added_tokens_decoder = false;
  std::optional<bool> add_bos, add_eos, legacy;
  std::string bos, eos;           ///< "": not named
  std::vector<AddedToken> named;  ///< bos_token, eos_token, unk_token, pad_token, additional_special_tokens
  std::vector<AddedToken> added_by_id;  ///< added_tokens_decoder / added_tokens.json, ascending ids
};

/// Missing files are fine; broken ones throw InputError.
TokenizerConfig read_tokenizer_config(const std::string& folder);

/// Reads {"content": ..., "special": ..., ...} as tokenizer.json and added_tokens_decoder have it (`id`
/// apart).
AddedToken read_added_token(const class JsonView& json);

}  // namespace prefill
