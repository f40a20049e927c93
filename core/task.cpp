#include "core/task.h"

namespace prefill {
Registry<TaskInfo>& tasks() {
  static Registry<TaskInfo> registry("task");
  return registry;
}
}  // namespace prefill
