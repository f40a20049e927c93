// One of four options: code_debug (2.4) and longbook_choice_eng (2.7). A bare letter is wrong in the first
// and right in the second; both skip one character after an answer prefix whatever it is.
#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

// What stands after the first of `prefixes` that occurs, and one more character. found = false: none occurs.
// rest stays null when the text ends with the prefix.
struct Tail {
  bool found = false, empty = false;
  std::u32string_view rest;
};
Tail after_prefix(std::u32string_view text, const std::vector<std::u32string_view>& prefixes) {
  for (std::u32string_view prefix : prefixes) {
    size_t at = text.find(prefix);
    if (at == std::u32string_view::npos) continue;
    if (text.size() < at + prefix.size() + 1) return {true, true, {}};
    return {true, false, text.substr(at + prefix.size() + 1)};
  }
  return {};
}

// How Python's f-string writes the letter of a label; data sets have a string here.
std::u32string formatted(const Value& v) {
  if (v.kind == Value::text) return v.string;
  if (v.kind == Value::integer) return decode_utf8(v.digits);
  throw PythonError{prefill::str("the label's letter must be a string, not ", v.type_name())};
}

}  // namespace

double score_code_debug(const Value& pred, const Value& label) {
  const std::u32string_view text = strip(pred.str("prediction"));
  const Value letter = label.at(1, "label"), name = label.at(0, "label");
  const std::u32string spelled = formatted(letter);
  const std::u32string_view two = text.substr(0, 2);
  if (two == spelled + U"." || two == spelled + U":") return 1;
  const std::u32string plain = collapse_spaces(
      blank(std::u32string(text), {U"\n", U"`", U"'", U"\"", U"-", U"*", U"Option", U"option"}));
  // The released "correct option is:" can never occur, since "option" was blanked; "is:" does its work.
  Tail tail = after_prefix(plain, {U"answer is:", U"is:", U"answer:"});
  if (!tail.found || tail.empty) return 0;
  return starts_with(tail.rest, letter.str("label's letter")) ||
         starts_with(tail.rest, name.str("label's function name"));
}

double score_choice(const Value& pred, const Value& label) {
  const std::u32string_view text = strip(pred.str("prediction"));
  if (text.empty()) return 0;
  if (text[0] >= 'A' && text[0] <= 'D') return contains(label, text.substr(0, 1));
  if (contains(label, text)) return 1;
  const std::u32string plain =
      collapse_spaces(blank(std::u32string(text), {U"\n", U"\"", U"'", U".", U",", U"?", U"!", U"{", U"}"}));
  Tail tail = after_prefix(plain, {U"answer is:", U"answer:", U"answer is", U"option is"});
  if (tail.found) {
    if (tail.empty) return 0;
    for (const Value& option : iterate(label))
      if (starts_with(tail.rest, option.str("label's option"))) return 1;
    return 0;
  }
  for (std::u32string_view word : split(plain))
    if (std::u32string_view(U"ABCD").find(word) != std::u32string_view::npos) return contains(label, word);
  return 0;
}

}  // namespace prefill::scoring
