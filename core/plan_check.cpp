// The invariants of a plan, checked one by one with a message that a method's author can act on.
#include <ATen/ATen.h>

#include "core/base/text.h"
#include "core/plan.h"

namespace prefill {
namespace {

[[noreturn]] void broken(const std::string& text) { throw BrokenPlan("broken plan: " + text); }

struct Csr {
  at::Tensor ptr, idx;  // kept alive
  const int* p;
  const int* ids;
  int64_t capacity;
};

Csr csr(const at::Tensor& ptr, const at::Tensor& idx, int64_t pattern, int64_t groups, const char* what) {
  if (!idx.defined()) broken(str(what, " pointers without indices"));
  if (ptr.scalar_type() != at::kInt || idx.scalar_type() != at::kInt)
    broken(str(what, " pointers and indices must be int32"));
  if (ptr.dim() != 2 || idx.dim() != 2 || ptr.size(0) != idx.size(0))
    broken(str(what, " pointers and indices must be [patterns, ...]"));
  if (ptr.size(1) != groups + 1)
    broken(str(what, " pointers have ", ptr.size(1), " entries, expected ", groups + 1));
  Csr c{ptr[pattern].to(at::kCPU).contiguous(), idx[pattern].to(at::kCPU).contiguous(), nullptr, nullptr,
        idx.size(1)};
  c.p = c.ptr.data_ptr<int>();
  c.ids = c.idx.data_ptr<int>();
  if (c.p[0] != 0) broken(str(what, " pointers of pattern ", pattern, " start at ", c.p[0], ", not 0"));
  for (int64_t g = 0; g < groups; ++g)
    if (c.p[g + 1] < c.p[g]) broken(str(what, " pointers of pattern ", pattern, " fall at row ", g));
  if (c.p[groups] > c.capacity)
    broken(str(what, " pointers of pattern ", pattern, " point past the indices"));
  return c;
}

void check_pattern(const AttentionPlan& plan, int64_t pattern, int64_t n) {
  const TileSet& t = plan.tiles;
  const int64_t rows = ceil_div(n, t.q_tile), step = t.step(), cols = ceil_div(n, step);
  const Csr tiles = csr(t.tile_ptr, t.tile_idx, pattern, rows, "tile");
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t first = r * t.q_tile, last = std::min<int64_t>(n, first + t.q_tile) - 1;
    auto where = [&] { return str("pattern ", pattern, " row ", r, ": "); };
    const int64_t diagonal = t.diagonal_start(first), crossed = (last - diagonal) / t.k_tile + 1;
    int64_t on_diagonal = 0;
    for (int i = tiles.p[r]; i < tiles.p[r + 1]; ++i) {
      const int64_t id = tiles.ids[i];
      if (id < 0 || id >= cols) broken(str(where(), "tile ", id, " lies outside [0, ", cols, ")"));
      if (i > tiles.p[r] && id <= tiles.ids[i - 1])
        broken(str(where(), "tiles must ascend without repetition, but ", id, " follows ", tiles.ids[i - 1]));
      const int64_t start = id * step;
      if (i > tiles.p[r] && start < tiles.ids[i - 1] * step + t.k_tile)
        broken(str(where(), "tile ", id, " (keys from ", start, " on) overlaps tile ", tiles.ids[i - 1]));
      if (start > last) broken(str(where(), "tile ", id, " starts after the row's last query ", last));
      if (start + t.k_tile <= first) continue;
      if (plan.resume) broken(str(where(), "a resumed plan may not hold the diagonal tile ", id));
      if (start < diagonal || (start - diagonal) % t.k_tile != 0)
        broken(str(where(), "tile ", id, " (keys from ", start,
                   " on) reaches the row's own queries, so it must ", "start at its first query ", first,
                   " or a multiple of ", t.k_tile, " keys after it"));
      ++on_diagonal;
    }
    if (!plan.resume && on_diagonal != crossed)
      broken(str(where(), "a query would not see itself: the row must hold all of tiles ", diagonal / step,
                 "..", (diagonal + (crossed - 1) * t.k_tile) / step, " in steps of ", t.k_tile / step));
  }
  if (!t.col_ptr.defined()) return;
  const int64_t span = int64_t(t.q_tile) * t.col_rows, groups = ceil_div(n, span);
  const Csr columns = csr(t.col_ptr, t.col_idx, pattern, groups, "column");
  for (int64_t g = 0; g < groups; ++g) {
    auto where = [&] { return str("pattern ", pattern, " column group ", g, ": "); };
    for (int i = columns.p[g]; i < columns.p[g + 1]; ++i) {
      const int64_t id = columns.ids[i];
      if (id < 0 || id >= g * span)
        broken(str(where(), "column ", id, " must lie before the group's first query ", g * span));
      if (i > columns.p[g] && id <= columns.ids[i - 1])
        broken(str(where(), "columns must ascend without repetition, but ", id, " follows ",
                   columns.ids[i - 1]));
    }
    for (int64_t r = g * t.col_rows; r < std::min<int64_t>(rows, (g + 1) * t.col_rows); ++r) {
      int c = columns.p[g];  // both lists ascend: one sweep finds an overlap
      for (int i = tiles.p[r]; i < tiles.p[r + 1]; ++i) {
        const int64_t from = int64_t(tiles.ids[i]) * step, to = from + t.k_tile;
        while (c < columns.p[g + 1] && columns.ids[c] < from) ++c;
        if (c < columns.p[g + 1] && columns.ids[c] < to)
          broken(str(where(), "column ", columns.ids[c], " is also in tile ", tiles.ids[i], " of row ", r,
                     " and would count twice"));
      }
    }
  }
}

}  // namespace

void check(const AttentionPlan& plan, int q_heads, int64_t n) {
  if (int(plan.heads.size()) != q_heads)
    broken(str("it routes ", plan.heads.size(), " heads, the layer has ", q_heads));
  if (!plan.want_tile_mean.empty() && int(plan.want_tile_mean.size()) != q_heads)
    broken("want_tile_mean must be empty or have one entry per head");
  const TileSet& t = plan.tiles;
  const int64_t patterns = t.tile_ptr.defined() ? t.tile_ptr.size(0) : 0;
  std::vector<bool> used(size_t(patterns), false);
  for (int h = 0; h < q_heads; ++h) {
    const Route& r = plan.heads[size_t(h)];
    if (r.kind == Route::window) {
      if (r.index < 0 || size_t(r.index) >= plan.windows.size())
        broken(str("head ", h, " names window ", r.index, " of ", plan.windows.size()));
      const Window& w = plan.windows[size_t(r.index)];
      if (w.sink < 0 || w.last < 0 || w.local < 1)
        broken(str("head ", h, ": a window needs sink >= 0, local >= 1, last >= 0"));
    } else if (r.kind == Route::tiles) {
      if (r.index < 0 || r.index >= patterns)
        broken(str("head ", h, " names pattern ", r.index, " of ", patterns));
      used[size_t(r.index)] = true;
    }
  }
  if (patterns > 0 && (t.q_tile < 1 || t.k_tile < 1 || t.col_rows < 1))
    broken("tile sizes and col_rows must be at least 1");
  if (patterns > 0 &&
      (t.k_step < 0 || t.k_tile % t.step() != 0 || (!t.aligned() && t.q_tile % t.step() != 0)))
    broken(str("k_step ", t.k_step, " must divide k_tile ", t.k_tile, " and q_tile ", t.q_tile));
  for (int64_t p = 0; p < patterns; ++p)
    if (used[size_t(p)]) check_pattern(plan, p, n);
  if (plan.complement && plan.complement->block % t.k_tile != 0)
    broken(str("the pooled complement's block ", plan.complement->block, " is not a multiple of k_tile ",
               t.k_tile));
  if (plan.complement && !t.aligned())
    broken("a pooled complement needs tiles of an aligned grid (k_step = 0)");
  if (plan.resume) {
    if (!plan.resume->covered) broken("a resumed plan must say what was covered");
    if (plan.resume->covered->resume) broken("a resumed plan may not resume another resumed plan");
    check(*plan.resume->covered, q_heads, n);
    if (plan.resume->overlap_allowed) return;
    const at::Tensor twice = [&] {
      AttentionPlan alone = plan;
      alone.resume->covered = nullptr;
      return n <= 4096 ? token_mask(alone, n) & token_mask(*plan.resume->covered, n) : at::Tensor();
    }();
    if (twice.defined() && twice.any().item<bool>()) {
      const at::Tensor at_ = twice.nonzero()[0];
      broken(str("key ", at_[2].item<int64_t>(), " counts twice for query ", at_[1].item<int64_t>(),
                 " of head ", at_[0].item<int64_t>(), ": passes must be disjoint"));
    }
  }
}

}  // namespace prefill
