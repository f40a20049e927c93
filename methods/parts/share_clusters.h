// SharePrefill's offline clusters of heads with similar attention: the released lookup format and this
// project's own artefact.
#pragma once
#include <string>
#include <vector>

#include "core/method.h"

namespace prefill {

struct HeadClusters {
  /// [layers][q_heads]: index of the cluster whose pattern the head may share, -1: none.
  std::vector<std::vector<int>> cluster_of;
  int clusters = 0;         ///< clusters that may share
  int listed_clusters = 0;  ///< clusters in the file
  int sharing_heads = 0;    ///< heads in clusters that may share
};

/// No head shares.
HeadClusters no_clusters(const ModelShape&);

/// Reads {"clusters": {id: [[layer, head], ...]}, "shared_clusters": [id, ...]}, bare (released) or as the
/// content of an artefact. all: every listed cluster of two heads or more may share, whatever shared_clusters
/// says. Throws InputError naming the file and cluster of what does not fit the model.
HeadClusters read_head_clusters(const std::string& path, const ModelShape& model, bool all);

}  // namespace prefill
