// String match of NVIDIA/RULER (scripts/eval/evaluate.py and synthetic/constants.py).
#include "core/base/text.h"
#include "tasks/scoring/rules.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {

double score_string_match(const Value& pred, const Value& references, bool all) {
  std::u32string text(strip(pred.str("prediction")));
  for (char32_t& c : text)
    if (c <= 0x1F) c = '\n';
  text = lower(strip(text));
  // RULER's own files always have lists here; a bare string is taken as a list of one.
  const std::vector<Value> list =
      references.kind == Value::text ? std::vector<Value>{references} : iterate(references);
  if (list.empty()) throw PythonError{"the list of references is empty"};
  double found = 0;
  for (const Value& reference : list)
    if (text.find(lower(reference.str("reference"))) != std::u32string::npos) found += 1;
  return all ? found / double(list.size()) : double(found > 0);
}

}  // namespace prefill::scoring
