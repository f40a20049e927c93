#include "core/report/frontier.h"

namespace prefill {
namespace {

/// A point without an interval could lie anywhere, so it overlaps everything.
bool overlap(const Estimate& a, const Estimate& b) {
  if (!a.has_interval() || !b.has_interval()) return true;
  return a.lo <= b.hi && b.lo <= a.hi;
}

bool dominates(const FrontierPoint& q, const FrontierPoint& p) {
  const bool no_worse = q.score.value >= p.score.value && q.cost.value <= p.cost.value;
  return no_worse && (q.score.value > p.score.value || q.cost.value < p.cost.value);
}

bool comparable(const FrontierPoint& p) { return p.score.known() && p.cost.known(); }

}  // namespace

std::string to_string(FrontierClass c) {
  switch (c) {
    case FrontierClass::on_frontier:
      return "on the frontier";
    case FrontierClass::within_noise:
      return "within noise of it";
    case FrontierClass::dominated:
      return "dominated";
    case FrontierClass::not_compared:
      break;
  }
  return "not compared";
}

char mark(FrontierClass c) {
  switch (c) {
    case FrontierClass::on_frontier:
      return '*';
    case FrontierClass::within_noise:
      return '~';
    case FrontierClass::dominated:
      return '.';
    case FrontierClass::not_compared:
      break;
  }
  return '?';
}

bool within_noise(const FrontierPoint& a, const FrontierPoint& b) {
  return overlap(a.score, b.score) && overlap(a.cost, b.cost);
}

std::vector<FrontierClass> classify(const std::vector<FrontierPoint>& points) {
  std::vector<FrontierClass> out(points.size(), FrontierClass::not_compared);
  for (size_t i = 0; i < points.size(); ++i) {
    if (!comparable(points[i])) continue;
    out[i] = FrontierClass::on_frontier;
    for (const FrontierPoint& other : points) {
      if (!comparable(other) || !dominates(other, points[i])) continue;
      if (!within_noise(other, points[i])) {
        out[i] = FrontierClass::dominated;
        break;
      }
      out[i] = FrontierClass::within_noise;
    }
  }
  return out;
}

}  // namespace prefill
