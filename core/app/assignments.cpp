#include "core/app/assignments.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {

nlohmann::json read_assignments(const std::vector<std::string>& texts) {
  nlohmann::json out = nlohmann::json::object();
  for (const std::string& text : texts) {
    const size_t eq = text.find('=');
    if (eq == std::string::npos || eq == 0) throw InputError(str("--set wants name=value, not '", text, "'"));
    const std::string name = text.substr(0, eq), value = text.substr(eq + 1);
    if (out.contains(name)) throw InputError(str("--set gives '", name, "' twice"));
    const auto parsed = nlohmann::json::parse(value, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_discarded())
      out[name] = value;
    else
      out[name] = parsed;
  }
  return out;
}

}  // namespace prefill
