// An estimate with its interval as JSON, alike in every file of the report.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/report/stats.h"

namespace prefill {

/// JSON knows no NaN and no infinity: what is not known is null.
inline nlohmann::json finite_or_null(double x) {
  return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
}

inline nlohmann::json to_json(const Estimate& e) {
  return {{"value", finite_or_null(e.value)},
          {"lo", finite_or_null(e.lo)},
          {"hi", finite_or_null(e.hi)},
          {"n", e.n}};
}

}  // namespace prefill
