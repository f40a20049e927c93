// Oniguruma (Ruby syntax, as the `tokenizers` library runs it) to PCRE2.
#include <cstdio>
#include <cstring>
#include <optional>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/split_regex.h"
#include "core/text/unicode.h"

namespace prefill {
namespace {

std::string hex_range(uint32_t first, uint32_t last) {
  char buffer[48];
  if (first == last)
    std::snprintf(buffer, sizeof buffer, "\\x{%x}", first);
  else
    std::snprintf(buffer, sizeof buffer, "\\x{%x}-\\x{%x}", first, last);
  return buffer;
}

// The ranges as the inside of a character class; `complement`: everything else.
std::string class_body(std::span<const CodePointRange> ranges, bool complement) {
  std::string out;
  if (!complement) {
    for (auto [first, last] : ranges) out += hex_range(first, last);
    return out;
  }
  uint32_t next = 0;
  for (auto [first, last] : ranges) {
    if (first > next) out += hex_range(next, first - 1);
    next = last + 1;
  }
  return out + hex_range(next, 0x10FFFF);
}

const RegexClassExtra* find_class(std::string_view name) {
  for (const auto* entry = regex_class_extras; entry->name; ++entry)
    if (name == entry->name) return entry;
  return nullptr;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (pos_ < in_.size()) item();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what, size_t at) const {
    throw InputError(
        str("regular expression '", in_, "', character ", at + 1, ": ", what,
            " is not supported (supported: literals, escapes, classes, \\s \\d \\w \\p{general category}, "
            "groups, look-around, quantifiers)"));
  }
  char peek(size_t ahead = 0) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }

  void item() {
    const char c = in_[pos_];
    if (c == '*' || c == '+' || c == '?' || (c == '{' && interval_length())) return quantifier();
    const size_t start = out_.size();
    if (c == '\\') {
      escape(false);
    } else if (c == '[') {
      char_class();
    } else if (c == '(') {
      groups_.push_back({start, caseless_});
      open_group();
      return;
    } else if (c == ')') {
      if (groups_.empty()) refuse("an unmatched ')'", pos_);
      out_ += in_[pos_++];
      atom_ = groups_.back().start;
      caseless_ = groups_.back().caseless_outside;
      groups_.pop_back();
      return;
    } else {  // one code point, so that a quantifier applies to all of it
      if (caseless_) refuse_folding(pos_);
      do out_ += in_[pos_++];
      while (pos_ < in_.size() && (static_cast<unsigned char>(in_[pos_]) & 0xC0) == 0x80);
    }
    atom_ = start;
  }

  // Oniguruma folds case over several characters: (?i)ss matches a sharp s, and the other way round. PCRE2
  // does not.
  void refuse_folding(size_t at) const {
    const auto lower = [&](size_t i) { return i < in_.size() ? char(in_[i] | 0x20) : '\0'; };
    const std::string pair{lower(at), lower(at + 1)};
    if (static_cast<unsigned char>(in_[at]) >= 0x80) refuse("a letter outside ASCII under (?i)", at);
    for (const char* folded : {"ss", "ff", "fi", "fl", "st"})
      if (pair == folded) refuse(str("'", pair, "' under (?i), which matches a single character too,"), at);
  }

  // "{n}", "{n,}", "{n,m}" or "{,m}" at pos_: its length; 0 when the brace is a literal.
  size_t interval_length() const {
    size_t i = pos_ + 1;
    const auto digits = [&] {
      const size_t from = i;
      while (i < in_.size() && in_[i] >= '0' && in_[i] <= '9') ++i;
      return i - from;
    };
    const size_t low = digits();
    size_t high = 0;
    if (i < in_.size() && in_[i] == ',')
      ++i, high = digits();
    else if (!low)
      return 0;
    return (low || high) && i < in_.size() && in_[i] == '}' ? i + 1 - pos_ : 0;
  }

  void quantifier() {
    if (in_[pos_] != '{') {
      out_ += in_[pos_++];
      if (peek() == '?' || peek() == '+') out_ += in_[pos_++];  // lazy, possessive: alike in both dialects
      return;
    }
    const size_t length = interval_length();
    std::string_view body = in_.substr(pos_ + 1, length - 1);
    const std::string interval = str(body[0] == ',' ? "{0" : "{", body);
    pos_ += length;
    out_ += interval;
    const bool exact = interval.find(',') == std::string::npos;
    if (peek() == '?' && exact) {  // Ruby: {n}? is an optional {n}; PCRE2: lazy
      wrap_atom(")?");
      ++pos_;
    } else if (peek() == '?') {
      out_ += in_[pos_++];
    } else if (peek() == '+') {  // Ruby: {n,m}+ repeats the repetition; PCRE2: possessive
      wrap_atom(")+");
      ++pos_;
    }
  }

  void wrap_atom(std::string_view tail) {
    const std::string_view all = out_;
    out_ = str(all.substr(0, atom_), "(?:", all.substr(atom_), tail);
  }

  void open_group() {
    const size_t at = pos_;
    out_ += in_[pos_++];
    if (peek() == '*') refuse("a verb '(*'", at);
    if (peek() != '?') return;
    for (std::string_view lead : {"?:", "?=", "?!", "?>", "?<=", "?<!"})
      if (in_.substr(pos_).starts_with(lead)) {
        out_ += lead;
        pos_ += lead.size();
        return;
      }
    // inline options: (?i), (?i:...), (?-i:...); m is Ruby's dot-matches-newline
    size_t end = pos_ + 1;
    while (end < in_.size() && std::strchr("imx-", in_[end]) && in_[end]) ++end;
    if (end == pos_ + 1 || end >= in_.size() || (in_[end] != ':' && in_[end] != ')'))
      refuse("this kind of group", at);
    for (size_t i = pos_; i <= end; ++i) out_ += in_[i] == 'm' ? 's' : in_[i];
    const std::string_view options = in_.substr(pos_ + 1, end - pos_ - 1);
    if (const size_t i = options.find('i'); i != options.npos) caseless_ = options.find('-') > i;
    pos_ = end + 1;
    if (in_[end] == ')') groups_.pop_back();
  }

  void char_class() {
    const size_t at = pos_;
    out_ += in_[pos_++];
    if (peek() == '^') out_ += in_[pos_++];
    if (peek() == ']') refuse("']' first in a class", pos_);
    for (;;) {
      if (pos_ >= in_.size()) refuse("a class without ']'", at);
      const char c = in_[pos_];
      if (c == ']') break;
      if (c == '[') refuse("a class inside a class", pos_);
      if (c == '&' && peek(1) == '&') refuse("an intersection '&&'", pos_);
      if (caseless_ &&
          (static_cast<unsigned char>(c) >= 0x80 || (c == '\\' && std::strchr("pPwWSD", peek(1)))))
        refuse("more than ASCII in a class under (?i)", pos_);
      if (c == '\\')
        escape(true);
      else
        out_ += in_[pos_++];
    }
    out_ += in_[pos_++];
  }

  void put_class(const std::string& body, bool in_class, bool negate) {
    out_ += in_class ? body : str(negate ? "[^" : "[", body, "]");
  }

  // A class known by a PCRE2 spelling plus what the reference has beyond it.
  void put_extended(std::string base, const char* name, bool in_class, bool negate, size_t at) {
    const auto* entry = find_class(name);
    if (!entry) refuse(str("\\p{", name, "}"), at);
    if (negate && in_class) refuse("a negated property inside a class", at);
    put_class(base + class_body({entry->begin, entry->end}, false), in_class, negate);
  }

  void escape(bool in_class) {
    const size_t at = pos_;
    if (++pos_ >= in_.size()) refuse("a trailing '\\'", at);
    const char c = in_[pos_++];
    switch (c) {
      case 's':
        return put_class(class_body(space_ranges, false), in_class, false);
      case 'S':
        return put_class(class_body(space_ranges, true), in_class, false);
      case 'd':
      case 'D':
        return put_extended("\\p{Nd}", "Nd", in_class, c == 'D', at);
      case 'w':
      case 'W':
        return put_extended("\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}", "w", in_class, c == 'W', at);
      case 'h':
      case 'H':  // a hexadecimal digit; PCRE2 has horizontal space here
        if (c == 'H' && in_class) refuse("\\H inside a class", at);
        return put_class("0-9A-Fa-f", in_class, c == 'H');
      case 'p':
      case 'P':
        return property(in_class, c == 'P', at);
      case 'v':
        out_ += "\\x0b";
        return;
      case 'b':
        if (in_class)
          out_ += "\\x08";
        else
          word_boundary(true);
        return;
      case 'B':
        if (in_class) refuse("\\B inside a class", at);
        return word_boundary(false);
      case 'u': {
        const std::string_view hex = in_.substr(pos_, 4);
        if (hex.size() < 4 || hex.find_first_not_of("0123456789abcdefABCDEF") != hex.npos)
          refuse("this \\u escape", at);
        out_ += str("\\x{", hex, "}");
        pos_ += 4;
        return;
      }
      case 'x':
        if (peek() == '{') {
          const size_t end = in_.find('}', pos_);
          if (end == in_.npos) refuse("this \\x escape", at);
          out_ += str("\\x", in_.substr(pos_, end + 1 - pos_));
          pos_ = end + 1;
          return;
        }
        out_ += "\\x";
        return;
      case 'A':
      case 'z':
      case 'Z':
        if (in_class) refuse(str("\\", c, " inside a class"), at);
        [[fallthrough]];
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        out_ += {'\\', c};
        return;
      default:
        break;
    }
    const bool letter_or_digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter_or_digit) refuse(str("\\", c), at);
    if (static_cast<unsigned char>(c) >= 0x80)
      out_ += c;  // the rest of the code point follows as a literal
    else
      out_ += {'\\', c};
  }

  void property(bool in_class, bool negate, size_t at) {
    if (peek() != '{') refuse("\\p without braces", at);
    const size_t end = in_.find('}', pos_);
    if (end == in_.npos) refuse("\\p without '}'", at);
    std::string name(in_.substr(pos_ + 1, end - pos_ - 1));
    if (!name.empty() && name[0] == '^') negate = !negate, name = name.substr(1);
    pos_ = end + 1;
    put_extended(str("\\p{", name, "}"), name.c_str(), in_class, negate, at);
  }

  void word_boundary(bool at_boundary) {
    const auto* entry = find_class("w");
    const std::string word =
        str("[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}", class_body({entry->begin, entry->end}, false), "]");
    out_ += at_boundary ? str("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))")
                        : str("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))");
  }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  struct Group {
    size_t start;  // in out_
    bool caseless_outside;
  };
  std::vector<Group> groups_;  // the open ones
  size_t atom_ = 0;            // where the thing that a quantifier would repeat starts in out_
  bool caseless_ = false;      // inside (?i)
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern) { return Translator(pattern).run(); }

std::string escape_regex(std::string_view literal) {
  std::string out;
  for (char c : literal) {
    if (std::strchr("\\.+*?()|[]{}^$#&-~", c) && c) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace prefill
