// SharePrefill's offline clusters of heads with similar attention: the released lookup format and this
// project's own artefact.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/method.h"

namespace prefill {

struct HeadClusters {
  /// [layers][q_heads]: index of the cluster whose pattern the head may share, -1: none.
  std::vector<std::vector<int>> cluster_of;
  int clusters = 0;         ///< clusters that may share
  int listed_clusters = 0;  ///< clusters in the file
  int sharing_heads = 0;    ///< heads in clusters that may share
  /// [clusters]: (layer, head) of the file's best_pivots; empty when the file has no best_pivots.
  std::vector<std::pair<int, int>> best_pivots;
};

/// No head shares.
HeadClusters no_clusters(const ModelShape&);

/// Reads {"clusters": {id: [[layer, head], ...]}, "shared_clusters": [id, ...]}, bare (released) or as the
/// content of an artefact; an optional "best_pivots": {id: [layer, head]} has one head of every cluster. all:
/// every listed cluster of two heads or more may share, whatever shared_clusters says. Throws InputError
/// naming the file and cluster of what does not fit the model.
HeadClusters read_head_clusters(const std::string& path, const ModelShape& model, bool all);

/// The head that a cluster's later borrowers resemble most: the largest sum of similarities (1 - distance) to
/// the cluster's heads in later layers, which alone can borrow; of equals the lowest. heads: layer * q_heads
/// + head, ascending, at least one. distance: symmetric, [n*n] row-major over all n heads of the model.
int best_pivot(const std::vector<int>& heads, const std::vector<double>& distance, int n, int q_heads);

}  // namespace prefill
