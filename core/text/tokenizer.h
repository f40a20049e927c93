// Tokenizers behind one interface; ids identical to the reference libraries.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace prefill {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// Ids of `text` (UTF-8), added tokens recognised inside the text. add_special: add BOS/EOS as the model's
  /// own tokenizer does by default. Throws InputError with the byte offset on invalid UTF-8. Thread-safe.
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special = true) const = 0;
  /// Text of the ids; bytes that do not form UTF-8 become U+FFFD, as the reference libraries print them.
  virtual std::string decode(const std::vector<int32_t>& ids, bool skip_special = true) const = 0;
  virtual int32_t vocab_size() const = 0;                      ///< largest id + 1, added tokens included
  virtual int32_t token_id(std::string_view token) const = 0;  ///< -1 when there is no such token
  virtual int32_t bos_id() const = 0;                          ///< -1: none
  virtual std::vector<int32_t> eos_ids()
      const = 0;                         ///< of the tokenizer files (generation_config adds its own)
  virtual std::string kind() const = 0;  ///< "byte-level BPE", "sentencepiece BPE", ...
};

/// Reads `tokenizer.json` or `tokenizer.model` (+ tokenizer_config.json) of a Hugging Face folder. Throws
/// InputError naming the file and the feature that is not understood.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& folder);

}  // namespace prefill
