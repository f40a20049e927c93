// Numbers: code_run (2.3), math_find (2.5), math_calc (2.11).
#include <cmath>
#include <cstdlib>

#include "core/base/text.h"
#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

Value integer(std::string canonical) {
  Value v;
  v.kind = Value::integer;
  v.digits = std::move(canonical);
  return v;
}

// int(x) of a finite float.
Value truncated(double x) {
  std::string exact(512, '\0');
  exact.resize(size_t(std::snprintf(exact.data(), exact.size(), "%.0f", std::trunc(x))));
  return integer(canonical_integer(exact));
}

// First match of \d+\.\d+|\d+ with the digits in ASCII; "" when there is none. Digits of any script.
std::string first_number(std::u32string_view text) {
  size_t i = 0;
  while (i < text.size() && digit_value(text[i]) < 0) ++i;
  std::string out;
  auto digits = [&] {
    for (; i < text.size() && digit_value(text[i]) >= 0; ++i) out += char('0' + digit_value(text[i]));
  };
  digits();
  if (!out.empty() && i + 1 < text.size() && text[i] == '.' && digit_value(text[i + 1]) >= 0) {
    out += '.';
    ++i;
    digits();
  }
  return out;
}

// float(text) of Python for what a label can hold; NaN when it would raise.
double python_float(std::u32string_view text) {
  std::string plain;
  for (char32_t c : strip(text))
    plain += digit_value(c) >= 0 ? char('0' + digit_value(c)) : c < 0x80 ? char(c) : '?';
  if (plain.empty() || plain.find_first_of("xXpP") != std::string::npos) return std::nan("");
  char* end = nullptr;
  double value = std::strtod(plain.c_str(), &end);
  return *end ? std::nan("") : value;
}

}  // namespace

std::optional<std::string> python_int(std::u32string_view text) {
  text = strip(text);
  std::string out;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    if (text[0] == '-') out = "-";
    text.remove_prefix(1);
  }
  size_t digits = 0;
  bool after_digit = false;
  for (char32_t c : text) {
    if (int d = digit_value(c); d >= 0) {
      out += char('0' + d);
      ++digits;
      after_digit = true;
    } else if (c == '_' && after_digit) {
      after_digit = false;
    } else {
      return std::nullopt;
    }
  }
  if (!after_digit || digits > max_int_digits) return std::nullopt;
  return canonical_integer(out);
}

double score_code_run(const Value& pred, const Value& label) {
  const Value wanted = label.kind == Value::list ? label.at(0, "label") : label;
  const std::u32string text =
      blank(std::u32string(strip(pred.str("prediction"))), {U"\n", U".", U"`", U"'", U"\"", U":"});
  const auto words = split(text);
  if (words.empty()) return 0;
  const auto value = python_int(words.back());
  return value && numbers_equal(wanted, integer(*value));
}

double score_math_find(Profile profile, const Value& pred, const Value& given) {
  Value label = given.kind == Value::list ? given.at(0, "label") : given;
  if (profile == Profile::flexprefill) {  // labels arrive as text and are truncated
    double whole = python_float(label.str("label"));
    if (!std::isfinite(whole)) throw PythonError{"the label is not a number"};
    label = truncated(whole);
  }
  if (!label.is_int() && label.kind != Value::floating)
    throw PythonError{prefill::str("the label must be a number, not ", label.type_name())};
  const std::string number = first_number(pred.str("prediction"));
  if (number.empty()) return 0;
  const double value = std::strtod(number.c_str(), nullptr);
  if (label.kind == Value::floating) return value == label.number;
  if (profile == Profile::official_88b3daa) {
    auto whole = python_int(decode_utf8(number));
    if (!whole)
      throw PythonError{
          prefill::str("int('", number.substr(0, 40), "') raises ValueError: the label is an integer")};
    return label.is_int() && numbers_equal(label, integer(*whole));
  }
  if (std::isinf(value)) {
    if (profile == Profile::official || profile == Profile::flexprefill) return 0;
    throw PythonError{"int(float(…)) raises OverflowError: the number in the prediction is too large"};
  }
  return numbers_equal(label, truncated(value));
}

double score_math_calc(Profile profile, const Value& pred, const Value& given,
                       const std::string& model_name) {
  if (given.kind != Value::list)
    throw PythonError{prefill::str("the label must be a list, not ", given.type_name())};
  if (given.items.empty()) throw PythonError{"the label is an empty list"};
  const bool unwraps = profile == Profile::official || profile == Profile::official_88b3daa;
  const Value& label = unwraps && given.items[0].kind == Value::list ? given.items[0] : given;
  const std::u32string& text = pred.str("prediction");
  std::vector<std::string> numbers;
  for (size_t i = 0; i < text.size();) {
    if (text[i] < '0' || text[i] > '9') {
      ++i;
      continue;
    }
    std::string run;
    for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) run += char(text[i]);
    if (run.size() > max_int_digits)
      throw PythonError{"the prediction has an integer of more than 4300 digits"};
    numbers.push_back(canonical_integer(run));
  }
  // The few-shot prompt makes a model print the first operand first, which labels leave out; the released
  // scorer mends that for one folder name only.
  if (model_name == "gpt4" && !numbers.empty()) numbers.erase(numbers.begin());
  if (label.items.empty()) throw PythonError{"the label is an empty list"};
  size_t hits = 0;
  while (hits < label.items.size() && hits < numbers.size() &&
         numbers_equal(label.items[hits], integer(numbers[hits])))
    ++hits;
  return double(hits) / double(label.items.size());
}

}  // namespace prefill::scoring
