// --set key=value into typed params, as the verbs that take a method or a calibration share it.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/config/fields.h"

namespace prefill {

/// MethodInfo::read, CalibratorInfo::read.
using ParamsReader =
    std::function<ParamsHandle(const std::vector<const Located*>& layers, const std::string& file,
                               const std::string& base_folder, Diagnostics&)>;

/// Typed params from "key=value" texts over the defaults. Throws InputError with every complaint, one a line.
ParamsHandle read_settings(const ParamsReader&, const std::string& what,
                           const std::vector<std::string>& texts);

}  // namespace prefill
