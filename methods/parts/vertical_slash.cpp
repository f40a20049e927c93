#include "methods/parts/vertical_slash.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/base/error.h"

namespace prefill {

at::Tensor stripe_mask(const at::Tensor& vertical, const at::Tensor& slash) {
  const int64_t heads = vertical.size(0), blocks = vertical.size(1);
  const at::Tensor index = at::arange(blocks, vertical.options().dtype(at::kLong));
  const at::Tensor offset = index.unsqueeze(1) - index;  // row - key block
  const at::Tensor slashes =
      slash.index_select(1, offset.clamp_min(0).flatten()).view({heads, blocks, blocks});
  return (slashes | vertical.unsqueeze(1)) & offset.ge(0);
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
