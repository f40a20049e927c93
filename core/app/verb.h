// A verb of the command line is one file in core/app/verbs/ that registers itself.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "core/registry.h"

namespace prefill {

/// setup() declares the options on the subcommand and returns what to run; that returns the exit code.
/// Throw InputError for bad input: main prints one line and exits with 2.
struct Verb {
  std::string name = {}, doc = {}, file = {};
  int order = 100;  ///< position in --help
  std::function<std::function<int()>(CLI::App&)> setup = {};
};
Registry<Verb>& verbs();
struct RegisterVerb {
  explicit RegisterVerb(Verb verb) { verbs().add(std::move(verb)); }
};

}  // namespace prefill
