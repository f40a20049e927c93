// Answers that must be found as they are: pass key, number string, key-value retrieval, dialogue names.
#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

const std::vector<std::u32string_view> retrieval_marks{U"\n", U":", U"\"", U"'", U".",
                                                       U",",  U"?", U"!",  U"{", U"}"};

double any_word_is(const std::u32string& text, const Value& label) {
  for (std::u32string_view word : split(text))
    if (equals(label, word)) return 1;
  return 0;
}

}  // namespace

// 2.1: the first run of ASCII digits, compared as a string, so leading zeros count.
double score_digits(const Value& pred, const Value& label) {
  const Value wanted = label.kind == Value::list ? label.at(0, "label") : label;
  const std::u32string& text = pred.str("prediction");
  size_t from = text.find_first_of(U"0123456789");
  std::u32string_view run;
  if (from != std::u32string::npos)
    run = std::u32string_view(text).substr(from, text.find_first_not_of(U"0123456789", from) - from);
  return equals(wanted, run);
}

// 2.2: the label is one of the words once the marks are blanked. What the label is differs by profile.
double score_kv(Profile profile, const Value& pred, const Value& label) {
  std::u32string text = blank(pred.str("prediction"), retrieval_marks);
  if (profile == Profile::minference || profile == Profile::shareprefill)
    text = blank(std::move(text), {U"</s>", U"The", U"To"});
  switch (profile) {
    case Profile::official_88b3daa:
      return any_word_is(text, label);  // a list never equals a word
    case Profile::shareprefill:
      return any_word_is(text, label.at(0, "label"));  // first letter of a bare string
    case Profile::flexprefill:
      return any_word_is(text, flexprefill_concatenated(label));
    default:
      return any_word_is(text, label.kind == Value::list ? label.at(0, "label") : label);
  }
}

// 2.6: only the first name counts, and it is not normalised as the prediction is.
double score_dialogue(const Value& pred, const Value& label) {
  const Value name = label.at(0, "label");
  std::u32string text = blank(pred.str("prediction"), retrieval_marks);
  for (std::u32string_view word : split(text))
    if (equals(name, upper(word))) return 1;
  return 0;
}

double score_dialogue_substring(const Value& pred, const Value& labels) {
  std::u32string text = upper(strip(pred.str("prediction")));
  for (const Value& name : iterate(labels))
    if (text.find(upper(name.str("label"))) != std::u32string::npos) return 1;
  return 0;
}

}  // namespace prefill::scoring
