#include "methods/parts/minference_patterns.h"

#include <charconv>

#include "core/base/text.h"
#include "core/text/json_view.h"
#include "methods/parts/artifacts.h"

namespace prefill {
namespace {

HeadPattern read_head(const nlohmann::json& entry, const std::string& where) {
  const bool shaped = entry.is_array() && entry.size() >= 3 && entry[0].is_string() && entry[1].is_number() &&
                      entry[2].is_number();
  if (!shaped) throw InputError(str(where, ": expected [pattern, size, size, score], found ", entry.dump()));
  HeadPattern p;
  const auto name = entry[0].get<std::string>();
  if (name == "vertical_and_slash")
    p.kind = HeadPattern::vertical_slash;
  else if (name == "stream_llm")
    p.kind = HeadPattern::stream;
  else if (name == "block_sparse")
    p.kind = HeadPattern::block_sparse;
  else
    throw InputError(str(where, ": unknown pattern '", name, "'",
                         did_you_mean(name, {"vertical_and_slash", "stream_llm", "block_sparse"})));
  const double first = entry[1].get<double>(), second = entry[2].get<double>();
  if (!(first >= 0 && first < 1e12 && second >= 0 && second < 1e12))
    throw InputError(str(where, ": sizes must be 0 or more, found ", entry.dump()));
  p.first = int64_t(first);
  p.second = int64_t(second);
  if (p.kind == HeadPattern::stream && p.second < 1)
    throw InputError(str(where, ": the window of stream_llm must be at least 1"));
  if (entry.size() > 3 && entry[3].is_number()) p.score = entry[3].get<double>();
  return p;
}

}  // namespace

const char* pattern_name(HeadPattern::Kind kind) {
  return kind == HeadPattern::vertical_slash ? "vertical_and_slash"
         : kind == HeadPattern::stream       ? "stream_llm"
                                             : "block_sparse";
}

std::vector<std::vector<HeadPattern>> read_head_patterns(const std::string& path, const ModelShape& model,
                                                         const HeadPattern& fallback) {
  nlohmann::json file = *read_json_file(path);
  if (is_artifact(file)) file = artifact_content(file, path, "minference", model);
  if (!file.is_array()) throw InputError(str(path, ": expected a list with one object per layer"));
  if (int64_t(file.size()) != model.layers)
    throw InputError(str(path, ": ", file.size(), " layers, but '", model.id, "' has ", model.layers));
  std::vector<std::vector<HeadPattern>> out(file.size(),
                                            std::vector<HeadPattern>(size_t(model.q_heads), fallback));
  for (size_t layer = 0; layer < file.size(); ++layer) {
    if (!file[layer].is_object())
      throw InputError(str(path, ": layer ", layer, " is not an object of heads"));
    for (const auto& [key, entry] : file[layer].items()) {
      int head = -1;
      const auto end = std::from_chars(key.data(), key.data() + key.size(), head);
      if (end.ec != std::errc() || end.ptr != key.data() + key.size() || head < 0 || head >= model.q_heads)
        throw InputError(str(path, ": layer ", layer, ": head '", key, "', but '", model.id,
                             "' has heads 0 to ", model.q_heads - 1));
      out[layer][size_t(head)] = read_head(entry, str(path, ": layer ", layer, ", head ", head));
    }
  }
  return out;
}

nlohmann::json write_head_patterns(const std::vector<std::vector<HeadPattern>>& patterns) {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& heads : patterns) {
    nlohmann::json layer = nlohmann::json::object();
    for (size_t h = 0; h < heads.size(); ++h)
      layer[std::to_string(h)] = {pattern_name(heads[h].kind), heads[h].first, heads[h].second,
                                  heads[h].score};
    layers.push_back(layer);
  }
  return layers;
}

}  // namespace prefill
