// Error types that say who must act. Exceptions are used above kernels/api.h, status codes below it.
#pragma once
#include <stdexcept>
#include <string>

namespace prefill {

/// Bad input (YAML, checkpoint, JSONL, argument): the user mends it. The message names the file, the place
/// and what would be right. The program exits with 2.
struct InputError : std::runtime_error {
  using runtime_error::runtime_error;
};

/// This combination can not be computed here, and why. A visible skip in the results, not a failure.
struct Unsupported : std::runtime_error {
  using runtime_error::runtime_error;
};

/// A method broke an invariant of the plan (plan.h): its author mends it.
struct BrokenPlan : std::logic_error {
  using logic_error::logic_error;
};

/// The accelerator no longer answers; only a fresh process can go on. The program exits with 3.
struct DeviceLost : std::runtime_error {
  using runtime_error::runtime_error;
};

/// The exit codes of every verb.
enum ExitCode : int { exit_ok = 0, exit_some_failed = 1, exit_bad_input = 2, exit_device_lost = 3 };

}  // namespace prefill
