// Tokens outside the model: found in the text before anything else looks at it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace prefill {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool special = false;      ///< left out by decode(skip_special)
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes the blanks on its left with it
  bool rstrip = false;       ///< takes the blanks on its right with it
  bool normalized = true;    ///< looked for in the normalized text
};

/// Finds the leftmost, then longest, of many strings.
class StringMatcher {
 public:
  void add(std::string_view pattern, int32_t value);
  bool empty() const { return nodes_.empty(); }
  struct Match {
    size_t begin, end;
    int32_t value;
  };
  /// The first match at or behind `from`; false when there is none.
  bool find(std::string_view text, size_t from, Match& match) const;

 private:
  struct Node {
    int32_t value = -1;
    int32_t child = -1, sibling = -1;
    unsigned char byte = 0;
  };
  std::vector<Node> nodes_;
  int32_t first_[256];  // the root's children by byte; -1: none
};

/// The added tokens of a tokenizer, with the rules of the `tokenizers` library (added_vocabulary.rs).
class AddedTokens {
 public:
  /// `lookup`: a token's id in the model's vocabulary, or -1. `first_free`: the id for the next unknown
  /// token.
  AddedTokens(std::function<int32_t(const std::string&)> lookup, int32_t first_free);

  /// Adds or replaces. The id is the model's for that content, else the next free one, as in the reference;
  /// keep_id: the one in `token`, when it has one.
  void add(AddedToken token, bool keep_id = false);
  /// To be called after the last add(). `normalize` is applied to tokens with normalized = true.
  void finish(const std::function<std::string(std::string_view)>& normalize);

  /// Cuts the text at added tokens: visit(begin, end, id), id -1 for text between them. Empty texts are not
  /// visited.
  void split(std::string_view text, bool normalized_ones,
             const std::function<void(size_t, size_t, int32_t)>& visit) const;

  int32_t id(const std::string& content) const;  ///< -1: not an added token
  const std::vector<AddedToken>& all() const { return tokens_; }
  /// What decoding takes for the token's text (its normalized form where that differs); null: no added token.
  const std::string* text(int32_t id) const;
  bool is_special_text(const std::string& text) const;
  bool any(bool normalized_ones) const { return !(normalized_ones ? normalized_ : raw_).empty(); }

 private:
  std::function<int32_t(const std::string&)> lookup_;
  int32_t first_free_;
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t> by_content_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::vector<std::string> texts_;
  StringMatcher raw_, normalized_;
};

}  // namespace prefill
