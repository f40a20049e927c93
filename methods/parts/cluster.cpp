#include "methods/parts/cluster.h"

#include <limits>

namespace prefill {

std::vector<int> average_linkage(std::vector<double> distance, int n, double cut) {
  std::vector<int> parent(static_cast<size_t>(n)), size(static_cast<size_t>(n), 1);
  std::vector<bool> alive(static_cast<size_t>(n), true);
  for (int i = 0; i < n; ++i) parent[size_t(i)] = i;
  auto at = [&](int i, int j) -> double& { return distance[size_t(i) * size_t(n) + size_t(j)]; };
  // The nearest later cluster of every cluster, kept up to date so that a merge costs O(n) and not O(n^2).
  std::vector<int> nearest(static_cast<size_t>(n), -1);
  auto refresh = [&](int i) {
    int best = -1;
    for (int j = i + 1; j < n; ++j)
      if (alive[size_t(j)] && (best < 0 || at(i, j) < at(i, best))) best = j;
    nearest[size_t(i)] = best;
  };
  for (int i = 0; i < n; ++i) refresh(i);
  while (true) {
    int a = -1;
    for (int i = 0; i < n; ++i)
      if (alive[size_t(i)] && nearest[size_t(i)] >= 0 &&
          (a < 0 || at(i, nearest[size_t(i)]) < at(a, nearest[size_t(a)])))
        a = i;
    if (a < 0 || at(a, nearest[size_t(a)]) > cut) break;
    const int b = nearest[size_t(a)];
    const double wa = size[size_t(a)], wb = size[size_t(b)];
    for (int j = 0; j < n; ++j)
      if (alive[size_t(j)] && j != a && j != b)
        at(a, j) = at(j, a) = (wa * at(a, j) + wb * at(b, j)) / (wa + wb);
    alive[size_t(b)] = false;
    parent[size_t(b)] = a;
    size[size_t(a)] += size[size_t(b)];
    // Average linkage never brings a merged cluster nearer than both parts were, but it may bring it nearer
    // than the remembered neighbour of another, and neighbours may have been a or b.
    for (int i = 0; i < n; ++i)
      if (alive[size_t(i)] && (i == a || nearest[size_t(i)] == a || nearest[size_t(i)] == b ||
                               (i < a && (nearest[size_t(i)] < 0 || at(i, a) < at(i, nearest[size_t(i)])))))
        refresh(i);
  }
  std::vector<int> label(static_cast<size_t>(n), -1);
  int next = 0;
  for (int i = 0; i < n; ++i) {
    int root = i;
    while (parent[size_t(root)] != root) root = parent[size_t(root)];
    if (label[size_t(root)] < 0) label[size_t(root)] = next++;
    label[size_t(i)] = label[size_t(root)];
  }
  return label;
}

}  // namespace prefill
