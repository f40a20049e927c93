#include "methods/parts/vertical_slash.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/device_ops.h"

namespace prefill {

at::Tensor stripe_mask(const at::Tensor& vertical, const at::Tensor& slash) {
  if (vertical.is_cuda() && cuda_ops().stripe_mask) return cuda_ops().stripe_mask(vertical, slash);
  const int64_t heads = vertical.size(0), blocks = vertical.size(1);
  const at::Tensor index = at::arange(blocks, vertical.options().dtype(at::kLong));
  const at::Tensor offset = index.unsqueeze(1) - index;  // row - key block
  const at::Tensor slashes =
      slash.index_select(1, offset.clamp_min(0).flatten()).view({heads, blocks, blocks});
  return (slashes | vertical.unsqueeze(1)) & offset.ge(0);
}

namespace {

/// Distances from a row's first query to the first keys of its tiles, ascending.
std::vector<int32_t> tile_offsets(const std::vector<int32_t>& distances, SlashTiles tiles) {
  std::vector<int32_t> offsets;
  int64_t covered = 0;  // keys up to this far before the first query
  for (int32_t d : distances)
    while (covered < d) {
      // the slash crosses keys from d to d - q_tile + 1 before the first query
      covered = std::max<int64_t>(covered + 1, d - tiles.q_tile + 1) + tiles.k_tile - 1;
      offsets.push_back(int32_t(covered));
    }
  return offsets;
}

std::vector<int32_t> true_places(const at::Tensor& mask) {
  const at::Tensor ids = mask.nonzero().flatten().to(at::kInt);
  return {ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel()};
}

}  // namespace

HostPattern cover_vertical_slash(const VerticalSlash& vs, SlashTiles tiles, int64_t n) {
  const std::vector<int32_t> offsets = tile_offsets(vs.distances, tiles);
  const int64_t q_tile = tiles.q_tile, k_tile = tiles.k_tile;
  HostPattern p;
  std::vector<int32_t> slashes, runs;  // first keys of a row's tiles: of slashes, of columns side by side
  for (int64_t first = 0; first < n; first += q_tile) {
    const auto whole = std::upper_bound(offsets.begin(), offsets.end(), first);
    slashes.clear();
    runs.clear();
    for (auto o = whole; o != offsets.begin();) slashes.push_back(int32_t(first - *--o));
    // the next tile would begin before the prompt; what it holds of it
    const int64_t lead = whole == offsets.end() ? 0 : std::max<int64_t>(0, first - *whole + k_tile);
    for (int64_t j = 0; j < lead; ++j) p.col_idx.push_back(int32_t(j));
    auto tile = slashes.begin();
    const auto end = std::lower_bound(vs.columns.begin(), vs.columns.end(), first);
    for (auto c = std::lower_bound(vs.columns.begin(), vs.columns.end(), lead); c < end;) {
      while (tile != slashes.end() && *tile + k_tile <= *c) ++tile;
      const int64_t next = tile == slashes.end() ? first : *tile;
      if (next <= *c) {
        ++c;  // a tile holds it
      } else if (end - c >= k_tile && c[k_tile - 1] == *c + k_tile - 1 && *c + k_tile <= next) {
        runs.push_back(*c);
        c += k_tile;
      } else {
        p.col_idx.push_back(*c++);
      }
    }
    std::merge(slashes.begin(), slashes.end(), runs.begin(), runs.end(), std::back_inserter(p.tile_idx));
    for (int64_t j = first; j < std::min(n, first + q_tile); j += k_tile) p.tile_idx.push_back(int32_t(j));
    p.end_row();
    p.end_group();
  }
  return p;
}

TileSet cover_vertical_slash(const at::Tensor& columns, const at::Tensor& distances, int64_t most,
                             SlashTiles tiles) {
  const int64_t heads = columns.size(0), n = columns.size(1);
  if (columns.is_cuda() && cuda_ops().cover_slashes) {
    const TileSet list = tiles_from_mask(columns.unsqueeze(1), int(n), 1);  // one row per head
    const DeviceOps::SlashLists lists =
        cuda_ops().cover_slashes(list.tile_idx.narrow(1, 0, std::min(most, list.tile_idx.size(1))),
                                 list.tile_ptr.select(1, 1), distances, tiles.q_tile, tiles.k_tile);
    TileSet out;
    out.q_tile = tiles.q_tile;
    out.k_tile = tiles.k_tile;
    out.k_step = 1;
    out.tile_ptr = lists.tile_ptr;
    out.tile_idx = lists.tile_idx;
    out.col_ptr = lists.col_ptr;
    out.col_idx = lists.col_idx;
    if (out.tile_ptr.defined()) return out;
  }
  const at::Tensor on_host[] = {columns.cpu(), distances.cpu()};
  std::vector<HostPattern> patterns;
  for (int64_t h = 0; h < heads; ++h)
    patterns.push_back(
        cover_vertical_slash({true_places(on_host[0][h]), true_places(on_host[1][h])}, tiles, n));
  return pack_patterns(patterns, tiles.q_tile, tiles.k_tile, 1, columns.device(), 1);
}

HostPattern cover_vertical_slash_released(const VerticalSlash& vs, int64_t n) {
  if (vs.distances.empty() || vs.distances.front() != 0)
    throw std::logic_error("the released index conversion needs distance 0");
  constexpr int64_t kWide = 64;  // of the released kernel, also its rows
  HostPattern p;
  for (int64_t first = 0; first < n; first += kWide) {
    auto add_range = [&](int64_t from, int64_t to) {
      to = std::min(to, first);  // the rest lies in the diagonal tile or after it
      for (; from + kWide <= to; from += kWide) p.tile_idx.push_back(int32_t(from));
      for (; from < to; ++from) p.col_idx.push_back(int32_t(from));
    };
    const int64_t row_end = first + kWide;  // not cut at n, as released
    auto column = vs.columns.begin();
    auto slash = vs.distances.rbegin();
    while (*slash >= row_end) ++slash;
    auto next_end = [&] { return std::max(row_end - int64_t(*slash++), kWide); };
    int64_t to = next_end(), from = to - kWide;
    while (true) {
      // Columns inside the range are computed with it; those before it stand alone.
      for (; column != vs.columns.end() && *column < to; ++column)
        if (*column < from) add_range(*column, *column + 1);
      if (slash == vs.distances.rend()) break;
      const int64_t end = next_end();
      if (end > to + kWide) {
        add_range(from, to);
        from = end - kWide;
        to = end;
      } else if (end > to) {
        to += kWide;
      }
    }
    add_range(from, to);
    p.tile_idx.push_back(int32_t(first));
    p.end_row();
    p.end_group();
  }
  return p;
}

}  // namespace prefill
