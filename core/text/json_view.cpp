#include "core/text/json_view.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {
const nlohmann::json kNull;
}

std::shared_ptr<const nlohmann::json> read_json_file(const std::string& path) {
  const std::string bytes = read_file(path);
  try {
    return std::make_shared<const nlohmann::json>(nlohmann::json::parse(bytes));
  } catch (const nlohmann::json::exception& e) {
    std::string what = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 5: ..."
    if (const size_t end = what.find("] "); what.starts_with("[json.exception") && end != what.npos)
      what.erase(0, end + 2);
    throw InputError(str(path, ": not valid JSON (", bytes.size(), " bytes): ", what));
  }
}

JsonView::JsonView(const nlohmann::json& value, std::string file, std::string path)
    : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

void JsonView::fail(std::string_view message) const {
  throw InputError(str(file_, ": at ", path_.empty() ? "the top level" : path_, ": ", message));
}

JsonView JsonView::at(const std::string& key) const {
  if (!value_->is_object()) fail(str("should be an object with '", key, "', is ", value_->type_name()));
  auto it = value_->find(key);
  if (it == value_->end()) fail(str("'", key, "' is missing"));
  return {*it, file_, str(path_, "/", key)};
}

JsonView JsonView::get(const std::string& key) const {
  if (!value_->is_object()) fail(str("should be an object, is ", value_->type_name()));
  auto it = value_->find(key);
  return {it == value_->end() ? kNull : *it, file_, str(path_, "/", key)};
}

bool JsonView::is_null() const { return value_->is_null(); }
bool JsonView::is_string() const { return value_->is_string(); }
bool JsonView::is_object() const { return value_->is_object(); }
bool JsonView::is_array() const { return value_->is_array(); }

std::string JsonView::string() const {
  if (!value_->is_string()) fail(str("should be a string, is ", value_->type_name()));
  return value_->get<std::string>();
}

bool JsonView::boolean() const {
  if (!value_->is_boolean()) fail(str("should be true or false, is ", value_->type_name()));
  return value_->get<bool>();
}

bool JsonView::boolean_or(bool if_missing) const { return is_null() ? if_missing : boolean(); }

int64_t JsonView::integer(int64_t low, int64_t high) const {
  if (!value_->is_number_integer()) fail(str("should be an integer, is ", value_->type_name()));
  const bool huge = value_->is_number_unsigned() && value_->get<uint64_t>() > uint64_t(INT64_MAX);
  const int64_t n = huge ? INT64_MAX : value_->get<int64_t>();
  if (huge || n < low || n > high)
    fail(str("should be an integer from ", low, " to ", high, ", is ", value_->dump()));
  return n;
}

std::vector<JsonView> JsonView::items() const {
  if (!value_->is_array()) fail(str("should be a list, is ", value_->type_name()));
  std::vector<JsonView> out;
  out.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) out.emplace_back((*value_)[i], file_, str(path_, "/", i));
  return out;
}

void JsonView::for_each(const std::function<void(const std::string&, const JsonView&)>& visit) const {
  if (!value_->is_object()) fail(str("should be an object, is ", value_->type_name()));
  for (const auto& [key, value] : value_->items()) visit(key, JsonView(value, file_, str(path_, "/", key)));
}

}  // namespace prefill
