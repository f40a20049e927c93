#include "tasks/scoring/value.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/base/text.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

constexpr int max_depth = 900;  // Python's recursion limit is near

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {
    if (size_t bad = invalid_utf8(text); bad != std::string_view::npos) fail(bad, "not UTF-8");
    if (text.starts_with("\xEF\xBB\xBF")) fail(0, "starts with a byte order mark, which JSON does not allow");
  }

  Value whole() {
    space();
    Value v = value(true, 0);
    end();
    return v;
  }

  Row row(const std::vector<std::string_view>& wanted) {
    space();
    if (peek() != '{') {
      value(false, 0);
      end();
      fail(0, "a row must be an object, {\"id\": …, \"prediction\": …, \"ground_truth\": …}");
    }
    Row row;
    object([&](const std::string& key) {
      bool keep = std::find(wanted.begin(), wanted.end(), key) != wanted.end();
      Value v = value(keep, 1);
      if (!keep) return;
      std::erase_if(row.fields, [&](const auto& f) { return f.first == key; });
      row.fields.emplace_back(key, std::move(v));
    });
    end();
    return row;
  }

 private:
  [[noreturn]] void fail(size_t at, const std::string& why) const {
    throw PythonError{prefill::str("not JSON: ", why, " (column ", at + 1, ")")};
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  void end() {
    space();
    if (at_ != text_.size()) fail(at_, "text after the value");
  }
  bool literal(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  template <class F>
  void object(F&& field) {  // at '{'
    ++at_;
    space();
    if (peek() == '}') return void(++at_);
    while (true) {
      if (peek() != '"') fail(at_, "a key in double quotes is expected");
      std::u32string key;
      quoted(&key);
      space();
      if (peek() != ':') fail(at_, "':' is expected");
      ++at_;
      space();
      field(encode_utf8(key));
      space();
      if (peek() == '}') return void(++at_);
      if (peek() != ',') fail(at_, "',' or '}' is expected");
      ++at_;
      space();
    }
  }

  Value value(bool keep, int depth) {
    if (depth > max_depth) fail(at_, "nested too deeply");
    Value v;
    if (at_ >= text_.size()) fail(at_, "the line ends too early");
    switch (text_[at_]) {
      case '"':
        v.kind = Value::text;
        quoted(keep ? &v.string : nullptr);
        return v;
      case '{':
        v.kind = Value::dict;
        object([&](const std::string& key) {
          Value item = value(keep, depth + 1);
          if (!keep) return;
          std::u32string k = decode_utf8(key);
          for (auto& [known, old] : v.entries)
            if (known == k) return void(old = std::move(item));
          v.entries.emplace_back(std::move(k), std::move(item));
        });
        return v;
      case '[':
        v.kind = Value::list;
        ++at_;
        space();
        if (peek() == ']') return ++at_, v;
        while (true) {
          Value item = value(keep, depth + 1);
          if (keep) v.items.push_back(std::move(item));
          space();
          if (peek() == ']') return ++at_, v;
          if (peek() != ',') fail(at_, "',' or ']' is expected");
          ++at_;
          space();
        }
      case 'n':
        if (literal("null")) return v;
        break;
      case 't':
        if (literal("true")) return v.kind = Value::boolean, v.digits = "1", v;
        break;
      case 'f':
        if (literal("false")) return v.kind = Value::boolean, v.digits = "0", v;
        break;
      case 'N':
        if (literal("NaN")) return v.kind = Value::floating, v.number = std::nan(""), v;
        break;
      case 'I':
        if (literal("Infinity")) return v.kind = Value::floating, v.number = HUGE_VAL, v;
        break;
      default:
        return number();
    }
    fail(at_, "a value is expected");
  }

  Value number() {
    Value v;
    if (literal("-Infinity")) return v.kind = Value::floating, v.number = -HUGE_VAL, v;
    size_t from = at_;
    auto digit = [&](size_t i) { return i < text_.size() && text_[i] >= '0' && text_[i] <= '9'; };
    if (peek() == '-') ++at_;
    if (!digit(at_)) fail(from, "a value is expected");
    if (text_[at_] == '0')
      ++at_;
    else
      while (digit(at_)) ++at_;
    size_t whole_end = at_;
    if (peek() == '.' && digit(at_ + 1)) {
      ++at_;
      while (digit(at_)) ++at_;
    }
    if (peek() == 'e' || peek() == 'E') {
      size_t e = at_ + 1;
      if (e < text_.size() && (text_[e] == '-' || text_[e] == '+')) ++e;
      if (digit(e)) {
        at_ = e;
        while (digit(at_)) ++at_;
      }
    }
    std::string spelled(text_.substr(from, at_ - from));
    if (at_ == whole_end) {
      if (spelled.size() - (spelled[0] == '-') > max_int_digits)
        fail(from, "an integer of more than 4300 digits");
      v.kind = Value::integer;
      v.digits = canonical_integer(spelled);
    } else {
      v.kind = Value::floating;
      v.number = std::strtod(spelled.c_str(), nullptr);
    }
    return v;
  }

  unsigned hex4() {
    unsigned out = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      char c = peek();
      unsigned d = c >= '0' && c <= '9'   ? unsigned(c - '0')
                   : c >= 'a' && c <= 'f' ? unsigned(c - 'a' + 10)
                   : c >= 'A' && c <= 'F' ? unsigned(c - 'A' + 10)
                                          : 16u;
      if (d == 16) fail(at_, "\\u needs four hexadecimal digits");
      out = out << 4 | d;
    }
    return out;
  }

  // At the opening quote. Null: only checked.
  void quoted(std::u32string* out) {
    size_t open = at_++;
    while (true) {
      size_t from = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             (unsigned char)(text_[at_]) >= 0x20)
        ++at_;
      if (out) *out += decode_utf8(text_.substr(from, at_ - from));
      if (at_ >= text_.size()) fail(open, "a string without its closing quote");
      if (text_[at_] == '"') return void(++at_);
      if (text_[at_] != '\\') fail(at_, "a control character inside a string");
      ++at_;
      char32_t c = 0;
      switch (peek()) {
        case '"':
          c = '"';
          break;
        case '\\':
          c = '\\';
          break;
        case '/':
          c = '/';
          break;
        case 'b':
          c = '\b';
          break;
        case 'f':
          c = '\f';
          break;
        case 'n':
          c = '\n';
          break;
        case 'r':
          c = '\r';
          break;
        case 't':
          c = '\t';
          break;
        case 'u': {
          ++at_;
          c = hex4();
          if (c >= 0xD800 && c <= 0xDBFF && text_.substr(at_, 2) == "\\u") {
            size_t back = at_;
            at_ += 2;
            char32_t low = hex4();
            if (low >= 0xDC00 && low <= 0xDFFF)
              c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            else
              at_ = back;
          }
          --at_;
          break;
        }
        default:
          fail(at_, "an unknown escape");
      }
      ++at_;
      if (out) out->push_back(c);
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

const char* Value::type_name() const {
  static constexpr const char* names[] = {"null",     "a bool", "an integer", "a float",
                                          "a string", "a list", "an object"};
  return names[kind];
}

const std::u32string& Value::str(const char* what) const {
  if (kind != text) throw PythonError{prefill::str("the ", what, " must be a string, not ", type_name())};
  return string;
}

Value Value::at(size_t i, const char* what) const {
  if (kind == list && i < items.size()) return items[i];
  if (kind == text && i < string.size()) return from_text(string.substr(i, 1));
  if (kind == list || kind == text)
    throw PythonError{prefill::str("the ", what, " has no element ", i, " (it has ",
                                   kind == list ? items.size() : string.size(), ")")};
  throw PythonError{prefill::str("the ", what, " must be a list, not ", type_name())};
}

Value Value::from_text(std::u32string s) {
  Value v;
  v.kind = text;
  v.string = std::move(s);
  return v;
}

Value Value::from_json(const nlohmann::json& j) {
  return parse_value(j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string canonical_integer(std::string_view digits) {
  bool minus = digits.starts_with('-');
  if (minus) digits.remove_prefix(1);
  while (digits.size() > 1 && digits[0] == '0') digits.remove_prefix(1);
  std::string out;
  if (minus && digits != "0") out += '-';
  return out += digits;
}

bool numbers_equal(const Value& a, const Value& b) {
  if (a.is_int() && b.is_int()) return a.digits == b.digits;
  if (a.kind == Value::floating && b.kind == Value::floating) return a.number == b.number;
  const Value& f = a.kind == Value::floating ? a : b;
  const Value& i = a.kind == Value::floating ? b : a;
  if (f.kind != Value::floating || !i.is_int()) return false;
  if (!std::isfinite(f.number) || std::trunc(f.number) != f.number) return false;
  std::string exact(std::snprintf(nullptr, 0, "%.0f", f.number) + 1, '\0');
  std::snprintf(exact.data(), exact.size(), "%.0f", f.number);
  exact.pop_back();
  return canonical_integer(exact) == i.digits;
}

bool equals(const Value& v, std::u32string_view s) { return v.kind == Value::text && v.string == s; }

const Value* Row::find(std::string_view key) const {
  for (const auto& [name, value] : fields)
    if (name == key) return &value;
  return nullptr;
}

Row parse_row(std::string_view line, const std::vector<std::string_view>& wanted) {
  return Parser(line).row(wanted);
}
Value parse_value(std::string_view json) { return Parser(json).whole(); }

}  // namespace prefill::scoring
