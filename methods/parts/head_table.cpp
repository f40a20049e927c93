#include "methods/parts/head_table.h"

#include <numeric>

#include "core/base/error.h"
#include "core/base/text.h"
#include "methods/parts/artifacts.h"

namespace prefill {
namespace {

using nlohmann::json;

json parse(const std::string& text, const std::string& path) {
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded())
    throw InputError(str(path, ": not valid JSON (a list of lists of numbers is expected)"));
  return value;
}

/// The right-hand side of "<anything>_<variant> = [[...]]" in Python source.
std::string python_list(const std::string& text, const std::string& variant, const std::string& path) {
  std::string names;
  for (size_t at = text.find('='); at != std::string::npos; at = text.find('=', at + 1)) {
    const size_t line = text.rfind('\n', at) + 1;  // npos + 1 is 0: the first line
    const size_t last = text.find_last_not_of(" \t", at - 1);
    if (at == 0 || last == std::string::npos || last < line) continue;
    const std::string name = text.substr(line, last + 1 - line);
    const size_t open = text.find_first_not_of(" \t\n", at + 1);
    if (open == std::string::npos || text[open] != '[') continue;
    names += (names.empty() ? "" : ", ") + name;
    if (!name.ends_with("_" + variant)) continue;
    int depth = 0;
    for (size_t i = open; i < text.size(); ++i) {
      depth += text[i] == '[' ? 1 : text[i] == ']' ? -1 : 0;
      if (depth == 0) return text.substr(open, i + 1 - open);
    }
    throw InputError(str(path, ": the list of ", name, " is not closed"));
  }
  throw InputError(
      str(path, ": no list whose name ends in _", variant, names.empty() ? "" : "; there is ", names));
}

void must_fit(const json& file, const std::string& field, const json& have, const std::string& path) {
  if (file.contains(field) && file[field] != have)
    throw InputError(
        str(path, ": made for ", field, " = ", file[field].dump(), ", here it is ", have.dump()));
}

}  // namespace

double HeadTable::mean() const {
  double sum = 0;
  size_t count = 0;
  for (const auto& row : rows) {
    sum = std::accumulate(row.begin(), row.end(), sum);
    count += row.size();
  }
  return count == 0 ? 0 : sum / double(count);
}

HeadTable HeadTable::filled(const ModelShape& model, double value) {
  return {std::vector<std::vector<double>>(size_t(model.layers),
                                           std::vector<double>(size_t(model.q_heads), value))};
}

HeadTable read_head_table(const std::string& path, const std::string& variant, const std::string& method,
                          const ModelShape& model, const json& settings) {
  const int layers = model.layers, q_heads = model.q_heads;
  const std::string text = read_file(path);
  json file = parse(path.ends_with(".py") ? python_list(text, variant, path) : text, path);
  if (is_artifact(file)) file = artifact_content(file, path, method, model);
  if (file.is_object()) {
    must_fit(file, "layers", layers, path);
    must_fit(file, "q_heads", q_heads, path);
    for (const auto& [field, value] : settings.items()) must_fit(file, field, value, path);
    if (!file.contains("thresholds")) throw InputError(str(path, ": no \"thresholds\" (a list of layers)"));
    file = json(file["thresholds"]);
  }
  if (!file.is_array() || int(file.size()) != layers)
    throw InputError(str(path, ": ", file.is_array() ? str(file.size(), " layers") : "no list",
                         ", this model has ", layers, " layers of ", q_heads, " query heads"));
  HeadTable table;
  for (int l = 0; l < layers; ++l) {
    const json& row = file[size_t(l)];
    if (!row.is_array() || int(row.size()) != q_heads)
      throw InputError(
          str(path, ": layer ", l, " must be a list of ", q_heads, " numbers, one per query head"));
    table.rows.emplace_back();
    for (int h = 0; h < q_heads; ++h) {
      const json& x = row[size_t(h)];
      if (!x.is_number() || x.get<double>() < 0 || x.get<double>() > 1)
        throw InputError(str(path, ": layer ", l, " head ", h, ": ", x.dump(), " is not a number in [0, 1]"));
      table.rows.back().push_back(x.get<double>());
    }
  }
  return table;
}

}  // namespace prefill
