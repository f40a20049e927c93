// YAML and JSON -> one tree with places.
#include <yaml-cpp/yaml.h>

#include <set>

#include "core/config/fields.h"

namespace prefill {

const Located* Located::find(const std::string& key) const {
  for (const auto& [k, v] : entries)
    if (k.text == key) return &v;
  return nullptr;
}

std::string Diagnostic::print() const {
  if (line == 0) return file.empty() ? text : str(file, ": ", text);
  return str(file, ":", line, ":", column, ": ", text);
}

namespace {
Located convert(const YAML::Node& node, const std::string& file, Diagnostics& out, int depth) {
  Located l;
  l.line = node.Mark().line + 1;
  l.column = node.Mark().column + 1;
  if (depth > 64) {
    out.push_back({file, l.line, l.column, "nested deeper than 64 levels"});
    return l;
  }
  switch (node.Type()) {
    case YAML::NodeType::Scalar:
      l.kind = Located::scalar;
      l.text = node.Scalar();
      l.quoted = node.Tag() == "!";
      break;
    case YAML::NodeType::Sequence:
      l.kind = Located::list;
      for (const auto& item : node) l.items.push_back(convert(item, file, out, depth + 1));
      break;
    case YAML::NodeType::Map: {
      l.kind = Located::map;
      std::set<std::string> seen;
      for (const auto& kv : node) {
        Located key = convert(kv.first, file, out, depth + 1);
        if (key.kind != Located::scalar) {
          out.push_back({file, key.line, key.column, "a key must be a plain word"});
          continue;
        }
        if (key.text ==
            "<<") {  // YAML 1.1; yaml-cpp would treat it as an ordinary key and silently merge nothing
          out.push_back(
              {file, key.line, key.column, "merge keys (<<) are not supported: write the fields out"});
          continue;
        }
        if (!seen.insert(key.text).second) {
          out.push_back({file, key.line, key.column, str("'", key.text, "' is given twice")});
          continue;
        }
        Located value = convert(kv.second, file, out, depth + 1);
        l.entries.emplace_back(std::move(key), std::move(value));
      }
      break;
    }
    default:
      break;
  }
  return l;
}
}  // namespace

Located parse_yaml(const std::string& text, const std::string& file, Diagnostics& out) {
  try {
    const auto documents = YAML::LoadAll(text);
    if (documents.size() > 1)
      out.push_back({file, 1, 1, "holds several YAML documents (---); one is expected"});
    return documents.empty() ? Located{} : convert(documents[0], file, out, 0);
  } catch (const YAML::Exception& e) {
    out.push_back({file, e.mark.line + 1, e.mark.column + 1, e.msg});
    return {};
  }
}

Located from_json(const nlohmann::json& j) {
  Located l;
  if (j.is_object()) {
    l.kind = Located::map;
    for (const auto& [key, value] : j.items()) {
      Located k;
      k.kind = Located::scalar;
      k.text = key;
      l.entries.emplace_back(std::move(k), from_json(value));
    }
  } else if (j.is_array()) {
    l.kind = Located::list;
    for (const auto& item : j) l.items.push_back(from_json(item));
  } else if (j.is_string()) {
    l.kind = Located::scalar;
    l.text = j.get<std::string>();
  } else if (!j.is_null()) {
    l.kind = Located::scalar;
    l.text = j.is_number_float() ? number_text(j.get<double>()) : j.dump();
  }
  return l;
}

}  // namespace prefill
