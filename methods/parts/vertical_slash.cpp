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

TileSet cover_vertical_slash(const at::Tensor& columns, const at::Tensor& distances, int64_t most, int tile) {
  const int64_t heads = columns.size(0), n = columns.size(1), rows = (n + tile - 1) / tile,
                rest = rows * tile - n;
  // Distance d hits block offsets floor(d/tile) and ceil(d/tile); the second is the first of d + tile - 1.
  at::Tensor hit = at::constant_pad_nd(distances, {0, rest}).view({heads, rows, tile}).any(2) |
                   at::constant_pad_nd(distances, {tile - 1, rest + 1})
                       .view({heads, rows + 1, tile})
                       .any(2)
                       .narrow(1, 0, rows);
  hit.select(1, 0).fill_(true);
  const at::Tensor whole = at::constant_pad_nd(columns, {0, rest}, true).view({heads, rows, tile}).all(2);
  const at::Tensor tiles = stripe_mask(whole, hit);
  TileSet out = tiles_from_mask(tiles, tile, tile);

  const TileSet list = tiles_from_mask(columns.unsqueeze(1), int(n), 1);  // one row per head
  const int64_t width = std::min(most, list.tile_idx.size(1));
  const at::Tensor place = at::arange(width, list.tile_idx.options());
  const at::Tensor real = place.unsqueeze(0) < list.tile_ptr.narrow(1, 1, 1);
  const at::Tensor ids = list.tile_idx.narrow(1, 0, width).masked_fill(real.logical_not(), 0);
  const at::Tensor tile_of = ids.div(tile, "floor").unsqueeze(1);
  const at::Tensor row = at::arange(rows, ids.options()).view({1, rows, 1});
  const at::Tensor covered = tiles.gather(2, tile_of.to(at::kLong).expand({heads, rows, width}));
  const at::Tensor keep = real.unsqueeze(1) & (tile_of < row) & covered.logical_not();
  if (keep.is_cuda() && cuda_ops().true_columns) {
    out.col_ptr = at::constant_pad_nd(keep.sum(2, /*keepdim=*/false, at::kInt).cumsum(1, at::kInt), {1, 0});
    out.col_idx = cuda_ops().true_columns(keep.contiguous(), out.col_ptr, ids);
  } else {
    const TileSet places = tiles_from_mask(keep, tile, 1);
    out.col_ptr = places.tile_ptr;
    out.col_idx = ids.gather(1, places.tile_idx.clamp_max(width - 1).to(at::kLong));
  }
  return out;
}

HostPattern cover_vertical_slash(const VerticalSlash& vs, int tile, int64_t n) {
  const int64_t rows = (n + tile - 1) / tile;
  // A slash at distance d runs through block offsets floor(d/tile) and, unless it starts in a corner, the
  // next.
  std::vector<uint8_t> offset_hit(size_t(rows) + 1, 0);
  offset_hit[0] = 1;
  for (int32_t d : vs.distances) {
    offset_hit[size_t(d / tile)] = 1;
    offset_hit[size_t((d + tile - 1) / tile)] = 1;
  }
  std::vector<int32_t> in_tile(size_t(rows), 0);
  for (int32_t j : vs.columns) ++in_tile[size_t(j / tile)];
  std::vector<uint8_t> whole(size_t(rows), 0);
  for (int64_t t = 0; t < rows; ++t)
    whole[size_t(t)] = in_tile[size_t(t)] == std::min<int64_t>(tile, n - t * tile);

  HostPattern p;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t <= r; ++t)
      if (offset_hit[size_t(r - t)] || whole[size_t(t)]) p.tile_idx.push_back(int32_t(t));
    p.end_row();
    for (int32_t j : vs.columns) {
      const int64_t t = j / tile;
      if (t >= r) break;
      if (!offset_hit[size_t(r - t)] && !whole[size_t(t)]) p.col_idx.push_back(j);
    }
    p.end_group();
  }
  return p;
}

namespace {

constexpr int64_t kWide = 64;  // of the released kernel

/// Collects the keys of one row as ascending, disjoint ranges and packs them.
class RowCover {
 public:
  RowCover(HostPattern& out, int64_t row) : out_(out), row_(row), first_query_(row * kWide) {}

  /// Keys [from, to), after everything added before.
  void add(int64_t from, int64_t to) {
    to = std::min(to, first_query_);  // the rest lies in the diagonal tile or after it
    while (from < to) {
      const int64_t t = from / kWide, end = std::min(to, (t + 1) * kWide);
      if (t != open_tile_) close_tile();
      open_tile_ = t;
      for (int64_t j = from; j < end; ++j) keys_.push_back(int32_t(j));
      from = end;
    }
  }
  void finish() {
    close_tile();
    out_.tile_idx.push_back(int32_t(row_));
    out_.end_row();
    out_.end_group();
  }

 private:
  void close_tile() {
    if (int64_t(keys_.size()) == kWide)
      out_.tile_idx.push_back(int32_t(open_tile_));
    else
      out_.col_idx.insert(out_.col_idx.end(), keys_.begin(), keys_.end());
    keys_.clear();
  }
  HostPattern& out_;
  int64_t row_, first_query_, open_tile_ = -1;
  std::vector<int32_t> keys_;
};

}  // namespace

HostPattern cover_vertical_slash_released(const VerticalSlash& vs, int64_t n) {
  if (vs.distances.empty() || vs.distances.front() != 0)
    throw std::logic_error("the released index conversion needs distance 0");
  const int64_t rows = (n + kWide - 1) / kWide;
  HostPattern p;
  for (int64_t r = 0; r < rows; ++r) {
    RowCover row(p, r);
    const int64_t row_end = (r + 1) * kWide;  // not cut at n, as released
    auto column = vs.columns.begin();
    auto slash = vs.distances.rbegin();
    while (*slash >= row_end) ++slash;
    auto next_end = [&] { return std::max(row_end - int64_t(*slash++), kWide); };
    int64_t to = next_end(), from = to - kWide;
    while (true) {
      // Columns inside the range are computed with it; those before it stand alone.
      for (; column != vs.columns.end() && *column < to; ++column)
        if (*column < from) row.add(*column, *column + 1);
      if (slash == vs.distances.rend()) break;
      const int64_t end = next_end();
      if (end > to + kWide) {
        row.add(from, to);
        from = end - kWide;
        to = end;
      } else if (end > to) {
        to += kWide;
      }
    }
    row.add(from, to);
    row.finish();
  }
  return p;
}

}  // namespace prefill
