// Reading JSON of unknown quality: every error names the file, the path inside it and what would be right.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace prefill {

/// Parses the file; throws InputError naming the file, line and column when it is missing or not JSON.
std::shared_ptr<const nlohmann::json> read_json_file(const std::string& path);

/// One value of a JSON file together with where it is. Cheap to copy; the document must outlive it.
class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string file, std::string path = "");

  /// Throws InputError "FILE: at PATH: message".
  [[noreturn]] void fail(std::string_view message) const;
  /// The member; fails when this is no object or has no such member.
  JsonView at(const std::string& key) const;
  /// The member; a null value when it is missing.
  JsonView get(const std::string& key) const;
  bool is_null() const;
  bool is_string() const;
  bool is_object() const;
  bool is_array() const;
  std::string string() const;
  bool boolean() const;
  bool boolean_or(bool if_missing) const;
  int64_t integer(int64_t low, int64_t high) const;
  std::vector<JsonView> items() const;
  /// Calls visit(key, value) for every member of an object.
  void for_each(const std::function<void(const std::string&, const JsonView&)>& visit) const;
  const nlohmann::json& raw() const { return *value_; }
  const std::string& file() const { return file_; }
  const std::string& path() const { return path_; }

 private:
  const nlohmann::json* value_;
  std::string file_, path_;
};

}  // namespace prefill
