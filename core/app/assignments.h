// Parameters given on the command line.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace prefill {

/// {"gamma=0.9", "semantics=released"} -> {"gamma": 0.9, "semantics": "released"}: values that are JSON are
/// read as such, the rest are strings. Throws InputError for a text without '=' and for a name given twice.
nlohmann::json read_assignments(const std::vector<std::string>& texts);

}  // namespace prefill
