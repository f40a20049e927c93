#include "methods/parts/host_pattern.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

namespace prefill {
namespace {

using Member = std::vector<int32_t> HostPattern::*;

/// [P, longest] int32; what lies past a pattern's own end is never read (TileSet's capacity rule), but zeroed
/// so that equal plans have equal bytes.
at::Tensor pack(const std::vector<HostPattern>& patterns, Member member, at::Device device) {
  size_t longest = 1;  // a capacity of 0 would give tensors without memory
  for (const HostPattern& p : patterns) longest = std::max(longest, (p.*member).size());
  at::Tensor out = at::zeros({int64_t(patterns.size()), int64_t(longest)}, at::kInt);
  for (size_t i = 0; i < patterns.size(); ++i) {
    const auto& from = patterns[i].*member;
    if (!from.empty())
      std::memcpy(out.data_ptr<int32_t>() + i * longest, from.data(), from.size() * sizeof(int32_t));
  }
  return device.is_cpu() ? out : out.to(device);
}

}  // namespace

TileSet pack_patterns(const std::vector<HostPattern>& patterns, int q_tile, int k_tile, int col_rows,
                      at::Device device, int k_step) {
  TileSet t;
  t.q_tile = q_tile;
  t.k_tile = k_tile;
  t.k_step = k_step;
  t.tile_ptr = pack(patterns, &HostPattern::tile_ptr, device);
  t.tile_idx = pack(patterns, &HostPattern::tile_idx, device);
  if (col_rows > 0) {
    t.col_rows = col_rows;
    t.col_ptr = pack(patterns, &HostPattern::col_ptr, device);
    t.col_idx = pack(patterns, &HostPattern::col_idx, device);
  }
  return t;
}

int64_t visible_pairs(int64_t row, int64_t key_tile, int q_tile, int k_tile, int64_t n) {
  const int64_t q0 = row * q_tile, q1 = std::min<int64_t>(n, q0 + q_tile);
  const int64_t k0 = key_tile * k_tile, k1 = std::min<int64_t>(n, k0 + k_tile);
  if (q0 >= q1 || k0 >= k1 || k0 >= q1) return 0;
  if (k1 - 1 <= q0) return (q1 - q0) * (k1 - k0);
  int64_t pairs = 0;
  for (int64_t i = std::max(q0, k0); i < q1; ++i) pairs += std::min(i + 1, k1) - k0;
  return pairs;
}

int64_t row_pairs(int64_t row, int q_tile, int64_t n) {
  const int64_t q0 = row * q_tile, q1 = std::min<int64_t>(n, q0 + q_tile);
  return (q1 * (q1 + 1) - q0 * (q0 + 1)) / 2;
}

}  // namespace prefill
