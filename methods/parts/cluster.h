// Agglomerative clustering of a distance matrix.
#pragma once
#include <vector>

namespace prefill {

/// Average linkage (UPGMA): the two clusters with the smallest mean distance are merged as long as that
/// distance is at most `cut`. distance is symmetric, [n*n] row-major. -> cluster index per item, numbered by
/// first member.
std::vector<int> average_linkage(std::vector<double> distance, int n, double cut);

}  // namespace prefill
