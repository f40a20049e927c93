#include "core/base/program.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace prefill {

std::filesystem::path program_folder() {
  std::error_code failed;
  const auto exe = std::filesystem::read_symlink("/proc/self/exe", failed);
  return failed ? std::filesystem::path() : exe.parent_path();
}

Finished run_program(std::vector<std::string> words, bool output_to_errors) {
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (output_to_errors) posix_spawn_file_actions_adddup2(&actions, 2, 1);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return {false, 0, std::strerror(error)};
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return {true, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), ""};
}

}  // namespace prefill
