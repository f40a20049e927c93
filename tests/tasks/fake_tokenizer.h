// Tokenizers small enough to reason about, with the traits that break length arithmetic: several tokens per
// word, merges across pieces, special tokens at both ends.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"

namespace prefill {

class FakeTokenizer : public Tokenizer {
 public:
  enum Kind {
    bytes,  ///< every byte is a token
    words,  ///< a run of letters with its leading space, a single digit, another single character
    pairs,  ///< two characters a token, counted from the start of the text: nothing is additive
  };
  explicit FakeTokenizer(Kind kind, bool bos = false, bool eos = false) : kind_(kind), bos_(bos), eos_(eos) {}

  std::vector<int32_t> encode(std::string_view text, bool add_special = true) const override {
    std::vector<int32_t> out;
    if (bos_ && add_special) out.push_back(0);
    auto letter = [&](size_t i) {
      return i < text.size() && ((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z');
    };
    for (size_t i = 0; i < text.size();) {
      size_t n = kind_ == pairs ? 2 : 1;
      if (kind_ == words) {
        size_t from = i + (text[i] == ' ' && letter(i + 1));
        if (letter(from)) {
          n = from - i;
          while (letter(i + n)) ++n;
        }
      }
      const std::string piece(text.substr(i, n));
      auto [it, fresh] = ids_.emplace(piece, int32_t(ids_.size()) + 2);
      if (fresh) pieces_.push_back(piece);
      out.push_back(it->second);
      i += n;
    }
    if (eos_ && add_special) out.push_back(1);
    return out;
  }
  std::string decode(const std::vector<int32_t>& ids, bool = true) const override {
    std::string out;
    for (int32_t id : ids)
      if (id >= 2) out += pieces_[size_t(id) - 2];
    return out;
  }
  int32_t vocab_size() const override { return int32_t(ids_.size()) + 2; }
  int32_t token_id(std::string_view) const override { return -1; }
  int32_t bos_id() const override { return bos_ ? 0 : -1; }
  std::vector<int32_t> eos_ids() const override { return {1}; }
  std::string kind() const override { return "fake"; }

 private:
  Kind kind_;
  bool bos_, eos_;
  mutable std::map<std::string, int32_t> ids_;
  mutable std::vector<std::string> pieces_;
};

}  // namespace prefill
