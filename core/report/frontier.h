// The Pareto frontier of score (higher is better) against a cost (lower is better), with noise taken
// seriously.
#pragma once
#include <string>
#include <vector>

#include "core/report/stats.h"

namespace prefill {

struct FrontierPoint {
  Estimate score, cost;
};

/// on_frontier:  no other point is at least as good on both axes and better on one (by the estimates).
/// within_noise: such points exist, but none of them is clearly better on either axis: the 95 % intervals
/// overlap
///               on both, so that a repetition may well place this point on the frontier.
/// dominated:    a point that is at least as good on both axes is clearly better on one (disjoint intervals).
/// not_compared: score or cost is unknown, or the point was measured on fewer tasks than the others.
enum class FrontierClass { on_frontier, within_noise, dominated, not_compared };
std::string to_string(FrontierClass c);
/// One character for tables: '*', '~', '.', '?'.
char mark(FrontierClass c);

/// Class of every point. Points whose score or cost is not known neither get a class nor dominate anything.
std::vector<FrontierClass> classify(const std::vector<FrontierPoint>& points);

/// True when the intervals overlap on both axes: the data do not tell the two points apart.
bool within_noise(const FrontierPoint& a, const FrontierPoint& b);

}  // namespace prefill
