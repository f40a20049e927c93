#include "core/app/set_option.h"

#include "core/app/assignments.h"
#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {

ParamsHandle read_settings(const ParamsReader& read, const std::string& what,
                           const std::vector<std::string>& texts) {
  Diagnostics bad;
  const Located given = from_json(read_assignments(texts));
  ParamsHandle params = read({&given}, "--set", "", bad);
  std::string all;
  for (const Diagnostic& d : bad) all += (all.empty() ? "--set: " : "\n--set: ") + d.text;
  if (!bad.empty()) throw InputError(all);
  if (!params.invalid.empty()) throw InputError(str(what, ": ", params.invalid));
  return params;
}

}  // namespace prefill
