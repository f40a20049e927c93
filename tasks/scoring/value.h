// JSON as Python's json module reads it. The official scorers branch on Python types (an int label and a
// float label are scored by different rules, a bool is an int, integers have any size) and accept what strict
// parsers refuse (NaN, lone surrogates, repeated keys), so a general library would change scores. Values that
// nobody asks for are checked and skipped without a copy: prediction files often carry their 100 KB contexts.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace prefill::scoring {

/// sys.set_int_max_str_digits of Python 3.11 and later: int() of a longer string raises.
inline constexpr size_t max_int_digits = 4300;

/// What Python would have raised; the text says what is wrong with the row.
struct PythonError {
  std::string what;
};

struct Value {
  enum Kind { none, boolean, integer, floating, text, list, dict } kind = none;
  std::string digits;        ///< integer (and boolean: "0", "1"): canonical decimal, "-12"
  double number = 0;         ///< floating
  std::u32string string;     ///< text
  std::vector<Value> items;  ///< list
  std::vector<std::pair<std::u32string, Value>> entries;  ///< dict, in order, keys unique

  bool is_int() const { return kind == integer || kind == boolean; }  ///< isinstance(x, int)
  /// The string; throws PythonError when the value is not one (`what` names it in the message).
  const std::u32string& str(const char* what) const;
  /// x[i] of a list or string, as Python indexes; throws PythonError (IndexError, KeyError, TypeError).
  Value at(size_t i, const char* what) const;
  const char* type_name() const;

  static Value from_text(std::u32string s);
  static Value from_json(const nlohmann::json& j);
};

/// The decimal text without sign of zero and leading zeros: "007" -> "7", "-0" -> "0". Input: [-]digits.
std::string canonical_integer(std::string_view digits);
/// Python's == between numbers (int, bool, float of any size). False when either is no number.
bool numbers_equal(const Value& a, const Value& b);
/// Python's == between a value and a string.
bool equals(const Value& v, std::u32string_view s);

/// One line of a JSONL file: the wanted keys of the object, the last of repeated ones.
struct Row {
  std::vector<std::pair<std::string, Value>> fields;
  const Value* find(std::string_view key) const;
};
/// Throws PythonError with the column when the line is not UTF-8, not JSON or not an object.
Row parse_row(std::string_view line, const std::vector<std::string_view>& wanted);
/// Any JSON text as a value; throws PythonError.
Value parse_value(std::string_view json);

}  // namespace prefill::scoring
