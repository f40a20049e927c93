#include "methods/parts/share_clusters.h"

#include <set>

#include "core/base/text.h"
#include "core/text/json_view.h"
#include "methods/parts/artifacts.h"

namespace prefill {

HeadClusters no_clusters(const ModelShape& model) {
  HeadClusters c;
  c.cluster_of.assign(size_t(model.layers), std::vector<int>(size_t(model.q_heads), -1));
  return c;
}

HeadClusters read_head_clusters(const std::string& path, const ModelShape& model, bool all) {
  nlohmann::json file = *read_json_file(path);
  if (is_artifact(file)) file = artifact_content(file, path, "shareprefill", model);
  if (!file.is_object() || !file.contains("clusters") || !file["clusters"].is_object() ||
      !file.contains("shared_clusters") || !file["shared_clusters"].is_array())
    throw InputError(
        str(path, ": expected {\"clusters\": {id: [[layer, head], ...]}, \"shared_clusters\": [id, ...]}"));
  std::set<std::string> shared;
  for (const auto& id : file["shared_clusters"]) {
    if (!id.is_string() || !file["clusters"].contains(id.get<std::string>()))
      throw InputError(str(path, ": shared_clusters names ", id.dump(), ", which is no cluster of the file"));
    shared.insert(id.get<std::string>());
  }
  HeadClusters out = no_clusters(model);
  std::set<std::pair<int64_t, int64_t>> seen;
  for (const auto& [id, heads] : file["clusters"].items()) {
    ++out.listed_clusters;
    if (!heads.is_array()) throw InputError(str(path, ": cluster '", id, "' is not a list of [layer, head]"));
    const bool may_share = all ? heads.size() > 1 : shared.count(id) != 0;
    for (const auto& member : heads) {
      if (!member.is_array() || member.size() != 2 || !member[0].is_number_integer() ||
          !member[1].is_number_integer())
        throw InputError(str(path, ": cluster '", id, "': expected [layer, head], found ", member.dump()));
      const auto layer = member[0].get<int64_t>(), head = member[1].get<int64_t>();
      if (layer < 0 || layer >= model.layers || head < 0 || head >= model.q_heads)
        throw InputError(str(path, ": cluster '", id, "': layer ", layer, ", head ", head, ", but '",
                             model.id, "' has ", model.layers, " layers of ", model.q_heads, " heads"));
      if (!seen.insert({layer, head}).second)
        throw InputError(str(path, ": layer ", layer, ", head ", head, " is in two clusters"));
      if (may_share) {
        out.cluster_of[size_t(layer)][size_t(head)] = out.clusters;
        ++out.sharing_heads;
      }
    }
    if (may_share) ++out.clusters;
  }
  return out;
}

}  // namespace prefill
