// Other programs: where this one lies, and running one.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace prefill {

/// The folder of the running program; empty when the system does not say.
std::filesystem::path program_folder();

struct Finished {
  bool started = false;
  int status = 0;   ///< exit status, 128 + signal when a signal ended it
  std::string why;  ///< why it could not be started
};

/// Runs words[0], found by PATH where it has no slash, with the other words as arguments, and waits for it.
/// It shares this program's standard streams; `output_to_errors`: what it prints goes to standard error.
Finished run_program(std::vector<std::string> words, bool output_to_errors = false);

}  // namespace prefill
