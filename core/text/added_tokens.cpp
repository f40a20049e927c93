#include "core/text/added_tokens.h"

#include <algorithm>

#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace prefill {

void StringMatcher::add(std::string_view pattern, int32_t value) {
  if (pattern.empty()) return;
  if (nodes_.empty()) std::fill(std::begin(first_), std::end(first_), -1);
  int32_t node = -1;
  for (char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t child = node < 0 ? first_[byte] : nodes_[size_t(node)].child;
    while (node >= 0 && child >= 0 && nodes_[size_t(child)].byte != byte)
      child = nodes_[size_t(child)].sibling;
    if (child < 0) {
      child = int32_t(nodes_.size());
      Node fresh;
      fresh.byte = byte;
      if (node < 0) {
        first_[byte] = child;
      } else {
        fresh.sibling = nodes_[size_t(node)].child;
        nodes_[size_t(node)].child = child;
      }
      nodes_.push_back(fresh);
    }
    node = child;
  }
  nodes_[size_t(node)].value = value;
}

bool StringMatcher::find(std::string_view text, size_t from, Match& match) const {
  if (nodes_.empty()) return false;
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t node = first_[static_cast<unsigned char>(text[begin])];
    bool found = false;
    for (size_t i = begin + 1; node >= 0; ++i) {
      if (nodes_[size_t(node)].value >= 0) {
        match = {begin, i, nodes_[size_t(node)].value};
        found = true;
      }
      if (i >= text.size()) break;
      node = nodes_[size_t(node)].child;
      while (node >= 0 && nodes_[size_t(node)].byte != static_cast<unsigned char>(text[i]))
        node = nodes_[size_t(node)].sibling;
    }
    if (found) return true;
  }
  return false;
}

AddedTokens::AddedTokens(std::function<int32_t(const std::string&)> lookup, int32_t first_free)
    : lookup_(std::move(lookup)), first_free_(first_free) {}

void AddedTokens::add(AddedToken token, bool keep_id) {
  if (token.content.empty()) return;
  if (auto it = by_content_.find(token.content); it != by_content_.end()) {
    token.id = tokens_[it->second].id;
    tokens_[it->second] = std::move(token);
    return;
  }
  if (!keep_id || token.id < 0) token.id = lookup_(token.content);
  if (token.id < 0) token.id = first_free_;
  first_free_ = std::max(first_free_, token.id + 1);
  by_content_.emplace(token.content, tokens_.size());
  by_id_[token.id] = tokens_.size();
  tokens_.push_back(std::move(token));
}

void AddedTokens::finish(const std::function<std::string(std::string_view)>& normalize) {
  raw_ = {};
  normalized_ = {};
  texts_.clear();
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    texts_.push_back(token.normalized ? normalize(token.content) : token.content);
    (token.normalized ? normalized_ : raw_).add(texts_.back(), int32_t(i));
  }
}

void AddedTokens::split(std::string_view text, bool normalized_ones,
                        const std::function<void(size_t, size_t, int32_t)>& visit) const {
  const StringMatcher& matcher = normalized_ones ? normalized_ : raw_;
  size_t done = 0, from = 0;
  StringMatcher::Match match;
  while (matcher.find(text, from, match)) {
    const AddedToken& token = tokens_[size_t(match.value)];
    size_t begin = match.begin, end = match.end;
    from = end;
    if (token.single_word) {
      size_t next = end;
      if (begin > 0 && is_word(last_code_point(text, begin))) continue;
      if (end < text.size() && is_word(next_code_point(text, next))) continue;
    }
    if (token.lstrip)
      while (begin > done) {  // not past blanks that an earlier token with rstrip took
        const char32_t c = last_code_point(text, begin);
        if (!is_space(c)) break;
        begin -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
      }
    if (token.rstrip)
      for (size_t next = end; next < text.size() && is_space(next_code_point(text, next));) end = next;
    if (begin > done) visit(done, begin, -1);
    visit(begin, end, token.id);
    done = end;  // may lie before the last one: a token of blanks is found inside blanks that rstrip took
  }
  if (done < text.size()) visit(done, text.size(), -1);
}

int32_t AddedTokens::id(const std::string& content) const {
  auto it = by_content_.find(content);
  return it == by_content_.end() ? -1 : tokens_[it->second].id;
}

const std::string* AddedTokens::text(int32_t id) const {
  auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &texts_[it->second];
}

bool AddedTokens::is_special_text(const std::string& text) const {
  auto it = by_content_.find(text);
  return it != by_content_.end() && tokens_[it->second].special;
}

}  // namespace prefill
