// Tasks through the registry, as the program makes them.
#pragma once
#include <memory>
#include <string>

#include "core/task.h"

namespace prefill {

/// Throws InputError with the first complaint about the parameters.
inline std::unique_ptr<Task> make_task(const std::string& name, const TaskRequest& request,
                                       const nlohmann::json& params = nlohmann::json::object()) {
  const TaskInfo& info = tasks().at(name);
  const Located given = from_json(params);
  Diagnostics problems;
  const ParamsHandle handle = info.read({&given}, "test", "", problems);
  if (!problems.empty()) throw InputError(problems[0].text);
  if (!handle.invalid.empty()) throw InputError(handle.invalid);
  return info.make(handle, request);
}

}  // namespace prefill
