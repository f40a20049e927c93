#include "methods/parts/share_clusters.h"

#include <set>

#include "core/base/text.h"
#include "core/text/json_view.h"
#include "methods/parts/artifacts.h"

namespace prefill {
namespace {

/// [layer, head] of the model; `where` begins what is thrown otherwise.
std::pair<int, int> read_head(const nlohmann::json& j, const ModelShape& model, const std::string& where) {
  if (!j.is_array() || j.size() != 2 || !j[0].is_number_integer() || !j[1].is_number_integer())
    throw InputError(str(where, ": expected [layer, head], found ", j.dump()));
  const auto layer = j[0].get<int64_t>(), head = j[1].get<int64_t>();
  if (layer < 0 || layer >= model.layers || head < 0 || head >= model.q_heads)
    throw InputError(str(where, ": layer ", layer, ", head ", head, ", but '", model.id, "' has ",
                         model.layers, " layers of ", model.q_heads, " heads"));
  return {int(layer), int(head)};
}

/// The head that the file appoints for cluster `id`, one of `members`.
std::pair<int, int> read_best_pivot(const nlohmann::json& pivots, const std::string& id,
                                    const std::set<std::pair<int, int>>& members, const ModelShape& model,
                                    const std::string& path) {
  if (!pivots.contains(id)) throw InputError(str(path, ": best_pivots has no head for cluster '", id, "'"));
  const auto pivot = read_head(pivots[id], model, str(path, ": best_pivots, cluster '", id, "'"));
  if (!members.count(pivot))
    throw InputError(str(path, ": best_pivots, cluster '", id, "': layer ", pivot.first, ", head ",
                         pivot.second, " is not in that cluster"));
  return pivot;
}

}  // namespace

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
  const bool has_pivots = file.contains("best_pivots");
  if (has_pivots) {
    if (!file["best_pivots"].is_object())
      throw InputError(str(path, ": best_pivots: expected {id: [layer, head], ...}"));
    for (const auto& [id, pivot] : file["best_pivots"].items())
      if (!file["clusters"].contains(id))
        throw InputError(str(path, ": best_pivots names '", id, "', which is no cluster of the file"));
  }
  HeadClusters out = no_clusters(model);
  std::set<std::pair<int, int>> seen;
  for (const auto& [id, heads] : file["clusters"].items()) {
    ++out.listed_clusters;
    if (!heads.is_array()) throw InputError(str(path, ": cluster '", id, "' is not a list of [layer, head]"));
    const bool may_share = all ? heads.size() > 1 : shared.count(id) != 0;
    std::set<std::pair<int, int>> members;
    for (const auto& member : heads) {
      const auto [layer, head] = read_head(member, model, str(path, ": cluster '", id, "'"));
      if (!seen.insert({layer, head}).second)
        throw InputError(str(path, ": layer ", layer, ", head ", head, " is in two clusters"));
      members.insert({layer, head});
      if (may_share) {
        out.cluster_of[size_t(layer)][size_t(head)] = out.clusters;
        ++out.sharing_heads;
      }
    }
    if (has_pivots) {
      const auto pivot = read_best_pivot(file["best_pivots"], id, members, model, path);
      if (may_share) out.best_pivots.push_back(pivot);
    }
    if (may_share) ++out.clusters;
  }
  return out;
}

int best_pivot(const std::vector<int>& heads, const std::vector<double>& distance, int n, int q_heads) {
  int best = heads.front();
  double most = -1;
  for (const int pivot : heads) {
    double sum = 0;
    for (const int m : heads)
      if (m / q_heads > pivot / q_heads) sum += 1 - distance[size_t(pivot) * size_t(n) + size_t(m)];
    if (sum > most) {
      most = sum;
      best = pivot;
    }
  }
  return best;
}

}  // namespace prefill
