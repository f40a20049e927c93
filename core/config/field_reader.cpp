#include <algorithm>
#include <charconv>
#include <filesystem>

#include "core/config/fields.h"

namespace prefill {
namespace {
std::string bound_text(double v) {
  return v == std::floor(v) && std::abs(v) < 1e15 ? str(int64_t(v)) : number_text(v);
}
std::string range_text(const Rule& rule) {
  const bool lo = std::isfinite(rule.lo), hi = std::isfinite(rule.hi);
  if (lo && hi) return str("in [", bound_text(rule.lo), ", ", bound_text(rule.hi), "]");
  return lo ? str("at least ", bound_text(rule.lo)) : str("at most ", bound_text(rule.hi));
}
// YAML 1.2 core schema spellings, and nothing else: "yes" is a word.
bool as_bool(const std::string& t, bool& v) {
  if (t == "true" || t == "True" || t == "TRUE") return v = true, true;
  if (t == "false" || t == "False" || t == "FALSE") return v = false, true;
  return false;
}
template <class T>
bool as_number(std::string_view t, T& v) {
  if (!t.empty() && t[0] == '+') t.remove_prefix(1);
  auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), v);
  return error == std::errc() && end == t.data() + t.size();
}
bool as_integer(const std::string& t, int64_t& v) {
  if (as_number(t, v)) return true;
  // 1e3, 4K, 128K: lengths in tokens are usually said that way (K = 1024)
  if (t.size() > 1 && (t.back() == 'K' || t.back() == 'k') &&
      as_number(std::string_view(t).substr(0, t.size() - 1), v))
    return v *= 1024, true;
  double d = 0;
  if (t.find_first_of("eE") != std::string::npos && as_number(t, d) && d == std::floor(d) &&
      std::abs(d) < 9e15)
    return v = int64_t(d), true;
  return false;
}
}  // namespace

FieldReader::FieldReader(const Located& map, std::string what, std::string file, std::string base_folder,
                         Diagnostics& out)
    : map_(map), what_(std::move(what)), file_(std::move(file)), base_(std::move(base_folder)), out_(out) {
  if (map_.kind != Located::map && map_.kind != Located::null)
    complain(map_, str(what_, " must be a map of fields (key: value)"));
}

void FieldReader::complain(const Located& at, std::string text) {
  out_.push_back({file_, at.line, at.column, std::move(text)});
}

const Located* FieldReader::take(const char* name) {
  known_.push_back(name);
  return map_.find(name);
}

void FieldReader::finish() {
  for (const auto& [key, value] : map_.entries)
    if (std::find(known_.begin(), known_.end(), key.text) == known_.end()) {
      std::string hint = did_you_mean(key.text, known_);
      if (hint.empty()) {
        std::string all;
        for (const auto& k : known_) all += (all.empty() ? "" : ", ") + k;
        hint = known_.empty() ? "; it has no fields" : "; fields are " + all;
      }
      complain(key, str(what_, " has no field '", key.text, "'", hint));
    }
}

void FieldReader::read(const char* name, const Located& node, bool& value, const Rule&) {
  if (node.kind != Located::scalar || node.quoted || !as_bool(node.text, value))
    complain(node, str("'", name, "' must be true or false",
                       node.kind == Located::scalar ? ", not '" + node.text + "'" : ""));
}

void FieldReader::read(const char* name, const Located& node, int64_t& value, const Rule& rule) {
  int64_t v = 0;
  if (node.kind != Located::scalar || node.quoted || !as_integer(node.text, v))
    return complain(node, str("'", name, "' must be a whole number",
                              node.kind == Located::scalar ? ", not '" + node.text + "'" : ""));
  if (double(v) < rule.lo || double(v) > rule.hi)
    return complain(node, str("'", name, "' = ", v, " must be ", range_text(rule)));
  value = v;
}

void FieldReader::read(const char* name, const Located& node, int& value, const Rule& rule) {
  int64_t v = value;
  Rule r = rule;
  r.lo = std::max(r.lo, -2147483648.0);
  r.hi = std::min(r.hi, 2147483647.0);
  read(name, node, v, r);
  value = int(v);
}

void FieldReader::read(const char* name, const Located& node, double& value, const Rule& rule) {
  double v = 0;
  if (node.kind != Located::scalar || node.quoted || !as_number(node.text, v) || !std::isfinite(v))
    return complain(node, str("'", name, "' must be a number",
                              node.kind == Located::scalar ? ", not '" + node.text + "'" : ""));
  if (v < rule.lo || v > rule.hi)
    return complain(node, str("'", name, "' = ", number_text(v), " must be ", range_text(rule)));
  value = v;
}

void FieldReader::read(const char* name, const Located& node, std::string& value, const Rule& rule) {
  if (node.kind != Located::scalar) return complain(node, str("'", name, "' must be a word or text"));
  if (!rule.choices.empty() &&
      std::find(rule.choices.begin(), rule.choices.end(), node.text) == rule.choices.end()) {
    std::string all;
    for (const auto& c : rule.choices) all += (all.empty() ? "" : ", ") + c;
    return complain(node, str("'", name, "' = '", node.text, "' must be one of ", all,
                              did_you_mean(node.text, rule.choices)));
  }
  value = node.text;
}

void FieldReader::read(const char* name, const Located& node, Path& value, const Rule&) {
  if (node.kind != Located::scalar) return complain(node, str("'", name, "' must be a file name"));
  std::filesystem::path p = node.text;
  if (node.text.starts_with("~/"))
    if (const char* home = std::getenv("HOME")) p = std::filesystem::path(home) / node.text.substr(2);
  if (!node.text.empty() && p.is_relative()) {
    // relative to the YAML file, else to the current folder
    const auto beside = std::filesystem::path(base_) / p;
    if (!base_.empty() && (std::filesystem::exists(beside) || !std::filesystem::exists(p))) p = beside;
  }
  value.text = p.lexically_normal().string();
}

}  // namespace prefill
