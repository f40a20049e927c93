// What this binary was built from; part of every result's provenance.
#pragma once
#include <string>

namespace prefill {

struct BuildInfo {
  std::string version, git_sha, compiler, build_type, libtorch;
  std::string source_tree;  ///< where it was built; may be gone on the machine that runs it
  bool dirty = false, cuda = false;
  std::string summary() const;
};
const BuildInfo& build_info();

}  // namespace prefill
