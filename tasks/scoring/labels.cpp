#include "core/base/text.h"
#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

constexpr std::u32string_view separator = U"===answerspliter===";

// One item of the schema's list of strings.
std::u32string schema_text(const Value& item) {
  switch (item.kind) {
    case Value::text:
      return item.string;
    case Value::integer:
      return decode_utf8(item.digits);
    case Value::floating: {
      std::string s = number_text(item.number);
      if (s.find_first_of(".e") == std::string::npos) s += ".0";
      return decode_utf8(s);
    }
    default:
      throw PythonError{prefill::str("the label has ", item.type_name(), " where a string is expected")};
  }
}

std::u32string joined(const Value& label) {
  std::u32string out;
  auto add = [&, first = true](const std::u32string& piece) mutable {
    if (!first) out += separator;
    out += piece;
    first = false;
  };
  if (label.kind == Value::list)
    for (const Value& item : label.items) add(schema_text(item));
  else if (label.kind == Value::text)
    for (char32_t c : label.string) add(std::u32string(1, c));
  else
    add(schema_text(label));
  return out;
}

}  // namespace

bool contains(const Value& label, std::u32string_view x) {
  switch (label.kind) {
    case Value::list:
      for (const Value& item : label.items)
        if (equals(item, x)) return 1;
      return 0;
    case Value::text:
      return label.string.find(x) != std::u32string::npos;
    case Value::dict:
      for (const auto& [key, item] : label.entries)
        if (key == x) return 1;
      return 0;
    default:
      throw PythonError{prefill::str("the label must be a list, not ", label.type_name())};
  }
}

std::vector<Value> iterate(const Value& label) {
  std::vector<Value> out;
  switch (label.kind) {
    case Value::list:
      return label.items;
    case Value::text:
      for (char32_t c : label.string) out.push_back(Value::from_text(std::u32string(1, c)));
      return out;
    case Value::dict:
      for (const auto& [key, item] : label.entries) out.push_back(Value::from_text(key));
      return out;
    default:
      throw PythonError{prefill::str("the label must be a list, not ", label.type_name())};
  }
}

Value flexprefill_label(const Value& label) {
  std::u32string text = joined(label);
  Value out;
  out.kind = Value::list;
  size_t at = 0;
  for (size_t hit; (hit = text.find(separator, at)) != std::u32string::npos; at = hit + separator.size())
    out.items.push_back(Value::from_text(text.substr(at, hit - at)));
  out.items.push_back(Value::from_text(text.substr(at)));
  return out;
}

Value flexprefill_concatenated(const Value& label) {
  return Value::from_text(replace_all(joined(label), separator, U""));
}

}  // namespace prefill::scoring
