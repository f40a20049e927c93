// The command line: verbs register themselves (verb.h); this file turns errors into exit codes.
#include <algorithm>
#include <iostream>

#include "core/app/verb.h"
#include "core/base/build_info.h"

namespace prefill {

Registry<Verb>& verbs() {
  static Registry<Verb> registry("verb");
  return registry;
}

int run_command_line(int argc, char** argv) {
  CLI::App app{"prefillbench: sparse prefill attention, compared on one set of kernels, models and tasks"};
  app.name("prefillbench");
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", build_info().summary());
  app.footer(
      "First steps: scripts/quickstart.sh, or 'prefillbench list', 'prefillbench describe flexprefill',\n"
      "'prefillbench run experiments/pareto-quick.yaml'. Every verb has --help.\n"
      "Exit codes: 0 ok, 1 samples failed or none could be measured, 2 bad input, 3 device lost.");
  std::vector<const Verb*> ordered;
  for (const auto& [name, verb] : verbs().all()) ordered.push_back(&verb);
  std::stable_sort(ordered.begin(), ordered.end(), [](auto* a, auto* b) { return a->order < b->order; });
  std::vector<std::pair<CLI::App*, std::function<int()>>> actions;
  for (const Verb* verb : ordered) {
    CLI::App* sub = app.add_subcommand(verb->name, verb->doc);
    sub->footer("");  // the first steps stand in the program's own help
    actions.emplace_back(sub, verb->setup(*sub));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForAllHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::string hint;
    if (argc > 1 && argv[1][0] != '-' && !verbs().find(argv[1])) hint = verbs().unknown(argv[1]);
    std::cerr << "prefillbench: " << (hint.empty() ? e.what() : hint) << " (see prefillbench --help)\n";
    return exit_bad_input;
  }
  for (auto& [sub, action] : actions)
    if (sub->parsed()) return action();
  std::cout << app.help();
  return exit_ok;
}

}  // namespace prefill

int main(int argc, char** argv) {
  try {
    return prefill::run_command_line(argc, argv);
  } catch (const prefill::InputError& e) {
    std::cerr << "prefillbench: " << e.what() << "\n";
    return prefill::exit_bad_input;
  } catch (const prefill::DeviceLost& e) {
    std::cerr << "prefillbench: device lost: " << e.what() << "\n";
    return prefill::exit_device_lost;
  } catch (const prefill::Unsupported& e) {
    std::cerr << "prefillbench: not supported here: " << e.what() << "\n";
    return prefill::exit_bad_input;
  } catch (const std::exception& e) {
    std::cerr << "prefillbench: " << e.what() << "\n";
    return prefill::exit_some_failed;
  }
}
