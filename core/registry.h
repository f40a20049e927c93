// Ordered registry of named things. Entries add themselves from static objects, one per file, so that adding
// or deleting a file adds or removes an entry and nothing else changes (the objects are linked directly, not
// through a static library, or the linker would drop them).
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {

/// T needs members `name` and `file`.
template <class T>
class Registry {
 public:
  explicit Registry(std::string what) : what_(std::move(what)) {}

  void add(T entry) {
    auto [it, fresh] = all_.emplace(entry.name, entry);
    if (!fresh)
      throw std::logic_error(
          str(what_, " '", entry.name, "' is registered by ", it->second.file, " and by ", entry.file));
  }
  /// Null when there is no such entry.
  const T* find(const std::string& name) const {
    auto it = all_.find(name);
    return it == all_.end() ? nullptr : &it->second;
  }
  /// Throws InputError with the nearest name when there is no such entry.
  const T& at(const std::string& name) const {
    if (const T* hit = find(name)) return *hit;
    throw InputError(unknown(name));
  }
  std::string unknown(const std::string& name) const {
    return str("unknown ", what_, " '", name, "'", did_you_mean(name, names()));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, entry] : all_) out.push_back(name);
    return out;
  }
  const std::map<std::string, T>& all() const { return all_; }

 private:
  std::string what_;
  std::map<std::string, T> all_;
};

}  // namespace prefill
