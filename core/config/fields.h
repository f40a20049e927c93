// One field list per parameter struct gives reading with validation, canonical JSON, documentation and
// sweeps. A struct declares:   template <class V> void fields(V& v) { v("gamma", gamma, in(0, 1), "mass to
// cover"); }
#pragma once
#include <cstdint>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/text.h"

namespace prefill {

/// A file or folder name: relative ones in a YAML file are relative to that file, else to the current folder.
struct Path {
  std::string text;
  bool operator==(const Path&) const = default;
};

/// What values a field takes.
struct Rule {
  double lo = -std::numeric_limits<double>::infinity(), hi = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices;  ///< for strings; empty: any
  bool bounded() const { return std::isfinite(lo) || std::isfinite(hi); }
};
inline Rule any() { return {}; }
inline Rule in(double lo, double hi) { return {lo, hi, {}}; }
inline Rule at_least(double lo) { return {lo, std::numeric_limits<double>::infinity(), {}}; }
inline Rule one_of(std::vector<std::string> choices) {
  Rule r;
  r.choices = std::move(choices);
  return r;
}

template <class T>
struct FieldType;  // name shown to people
template <>
struct FieldType<bool> {
  static constexpr const char* name = "bool";
};
template <>
struct FieldType<int> {
  static constexpr const char* name = "int";
};
template <>
struct FieldType<int64_t> {
  static constexpr const char* name = "int";
};
template <>
struct FieldType<double> {
  static constexpr const char* name = "float";
};
template <>
struct FieldType<std::string> {
  static constexpr const char* name = "string";
};
template <>
struct FieldType<Path> {
  static constexpr const char* name = "path";
};
template <>
struct FieldType<std::vector<int>> {
  static constexpr const char* name = "list of int";
};
template <>
struct FieldType<std::vector<int64_t>> {
  static constexpr const char* name = "list of int";
};
template <>
struct FieldType<std::vector<double>> {
  static constexpr const char* name = "list of float";
};
template <>
struct FieldType<std::vector<std::string>> {
  static constexpr const char* name = "list of string";
};

/// One field as `describe` shows it.
struct FieldInfo {
  std::string name, type, doc;
  nlohmann::json fallback;  ///< the default, as JSON
  Rule rule;
};

inline void to_json(nlohmann::json& j, const Path& p) { j = p.text; }

/// Visitor: canonical JSON of a params struct (identity of a run).
struct JsonWriter {
  nlohmann::json out = nlohmann::json::object();
  template <class T>
  void operator()(const char* name, T& value, const Rule&, const char*) {
    out[name] = value;
  }
};
/// Visitor: schema with defaults (call on a default-constructed struct).
struct SchemaLister {
  std::vector<FieldInfo> out;
  template <class T>
  void operator()(const char* name, T& value, const Rule& rule, const char* doc) {
    out.push_back({name, FieldType<T>::name, doc, nlohmann::json(value), rule});
  }
};

template <class P>
nlohmann::json to_canonical(const P& params) {
  P copy = params;
  JsonWriter w;
  copy.fields(w);
  return w.out;
}
template <class P>
std::vector<FieldInfo> schema_of() {
  P defaults;
  SchemaLister s;
  defaults.fields(s);
  return s.out;
}

/// A value with its place in a file (line and column from 1; 0 when it came from code or the command line).
/// The tree that all readers work on: YAML files, JSON files and --set key=value end up in the same checks.
struct Located {
  enum Kind { null, scalar, list, map } kind = null;
  std::string text;                                  ///< scalar: as written
  bool quoted = false;                               ///< scalar: "..." or '...'; a quoted 1 is a string
  std::vector<Located> items;                        ///< list
  std::vector<std::pair<Located, Located>> entries;  ///< map, in order; duplicates kept for the error
  int line = 0, column = 0;
  const Located* find(const std::string& key) const;
};
struct Diagnostic {
  std::string file;
  int line = 0, column = 0;
  std::string text;
  std::string print() const;  ///< "file.yaml:3:7: text"
};
using Diagnostics = std::vector<Diagnostic>;

/// Parses YAML 1.2 text; syntax errors become a diagnostic. Merge keys and duplicate keys are errors.
Located parse_yaml(const std::string& text, const std::string& file, Diagnostics&);
Located from_json(const nlohmann::json&);

/// Reads one map into a struct, field by field, and collects every complaint with its place.
class FieldReader {
 public:
  /// `what` names the struct in messages ("flexprefill"). base_folder: what relative paths are relative to.
  FieldReader(const Located& map, std::string what, std::string file, std::string base_folder,
              Diagnostics& out);
  template <class T>
  void operator()(const char* name, T& value, const Rule& rule, const char*) {
    if (const Located* node = take(name)) read(name, *node, value, rule);
  }
  /// Complains about keys that no field took. Call once, last.
  void finish();

 private:
  const Located* take(const char* name);
  void complain(const Located& at, std::string text);
  void read(const char* name, const Located&, bool&, const Rule&);
  void read(const char* name, const Located&, int&, const Rule&);
  void read(const char* name, const Located&, int64_t&, const Rule&);
  void read(const char* name, const Located&, double&, const Rule&);
  void read(const char* name, const Located&, std::string&, const Rule&);
  void read(const char* name, const Located&, Path&, const Rule&);
  /// Taken as it is, for parts that another reader goes into.
  void read(const char*, const Located& node, Located& value, const Rule&) { value = node; }
  template <class T>
  void read(const char* name, const Located& node, std::vector<T>& value, const Rule& rule) {
    if (node.kind == Located::scalar) {  // one value stands for a list of one
      T item{};
      read(name, node, item, rule);
      value = {item};
      return;
    }
    if (node.kind != Located::list) return complain(node, str("'", name, "' must be a list"));
    value.assign(node.items.size(), T{});
    for (size_t i = 0; i < node.items.size(); ++i) {
      T item{};
      read(name, node.items[i], item, rule);
      value[i] = item;
    }
  }
  const Located& map_;
  std::string what_, file_, base_;
  Diagnostics& out_;
  std::vector<std::string> known_;
};

/// Reads params from several maps, later ones on top (base params, then a sweep point). P::invalid() returns
/// why a combination makes no sense, or "": such points are pruned, with the reason shown.
template <class P>
P read_params(const std::vector<const Located*>& layers, const std::string& what, const std::string& file,
              const std::string& base_folder, Diagnostics& out) {
  P params;
  for (const Located* layer : layers) {
    if (!layer || layer->kind == Located::null) continue;
    FieldReader reader(*layer, what, file, base_folder, out);
    params.fields(reader);
    reader.finish();
  }
  return params;
}

/// Type-erased handle on a params struct, so that registries need no templates.
struct ParamsHandle {
  nlohmann::json canonical;  ///< every field, defaults filled in
  std::string invalid;       ///< why the combination makes no sense; "" when it does
  std::shared_ptr<void> value;
};

}  // namespace prefill
