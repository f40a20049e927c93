// Decoders of tokenizer.json: from the texts of tokens back to text.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/text/json_view.h"

namespace prefill {

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  /// Rewrites the texts; the result of the last decoder is joined without separator.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
  /// True for ByteLevel alone: then the text is byte_level_bytes() of every token, joined, made valid UTF-8.
  virtual bool joins_bytes() const { return false; }
};

/// The bytes that ByteLevel takes a token's text for: those it stands for in the ByteLevel alphabet, or its
/// own.
std::string byte_level_bytes(const std::string& token);

/// Null for a null value (the reference then joins tokens with blanks). Supported: ByteLevel, ByteFallback,
/// Fuse, Replace, Strip, Metaspace, Sequence. Throws InputError naming any other type.
std::unique_ptr<TokenDecoder> read_decoder(const JsonView& json);

}  // namespace prefill
