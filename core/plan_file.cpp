#include "core/plan_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>

#include "core/base/text.h"
#include "core/model/safetensors.h"

namespace prefill {
namespace {

struct Grid {
  int q_tile = 64, k_tile = 64, col_rows = 1;
};

/// Rows and groups of one head while it is being written out.
struct HeadLists {
  std::vector<std::vector<int32_t>> tiles;    // [rows]
  std::vector<std::vector<int32_t>> columns;  // [groups]
};

std::vector<int32_t> slice(const at::Tensor& ptr, const at::Tensor& idx, int64_t pattern, int64_t row) {
  const int32_t *p = ptr.const_data_ptr<int32_t>() + pattern * ptr.size(1),
                *ids = idx.const_data_ptr<int32_t>() + pattern * idx.size(1);
  return {ids + p[row], ids + p[row + 1]};
}

at::Tensor on_host(const at::Tensor& t) { return t.defined() ? t.to(at::kCPU, at::kInt).contiguous() : t; }

bool has_columns(const AttentionPlan& p) { return p.tiles.col_ptr.defined(); }

/// The keys of one row's tiles, which start anywhere, as aligned tiles where they fill one and columns where
/// not. The row's own queries lie in whole aligned tiles.
void add_free_row(const TileSet& t, const Grid& grid, int64_t row, int64_t n, const std::vector<int32_t>& ids,
                  std::vector<int32_t>& tiles, std::vector<int32_t>& columns) {
  const int64_t first = row * t.q_tile, last = std::min<int64_t>(n, first + t.q_tile) - 1;
  std::vector<int32_t> open;  // keys of one aligned tile
  auto close = [&] {
    if (int64_t(open.size()) == grid.k_tile)
      tiles.push_back(open[0] / grid.k_tile);
    else
      columns.insert(columns.end(), open.begin(), open.end());
    open.clear();
  };
  for (int32_t id : ids)
    for (int64_t j = int64_t(id) * t.step(), end = std::min(first, j + t.k_tile); j < end; ++j) {
      if (!open.empty() && open[0] / grid.k_tile != j / grid.k_tile) close();
      open.push_back(int32_t(j));
    }
  close();
  for (int64_t tile = first / grid.k_tile; tile <= last / grid.k_tile; ++tile) tiles.push_back(int32_t(tile));
}

/// Adds one plan's own key sets (not those it resumes) to every head's lists.
void add_lists(const AttentionPlan& plan, const Grid& grid, int64_t n, std::vector<HeadLists>& heads) {
  const int64_t rows = ceil_div(n, grid.q_tile);
  const at::Tensor tile_ptr = on_host(plan.tiles.tile_ptr), tile_idx = on_host(plan.tiles.tile_idx);
  const at::Tensor col_ptr = on_host(plan.tiles.col_ptr), col_idx = on_host(plan.tiles.col_idx);
  for (size_t h = 0; h < heads.size(); ++h) {
    const Route& route = plan.heads[h];
    HeadLists& lists = heads[h];
    auto merge = [](std::vector<int32_t>& into, const std::vector<int32_t>& more) {
      std::vector<int32_t> both;
      std::set_union(into.begin(), into.end(), more.begin(), more.end(), std::back_inserter(both));
      into = std::move(both);
    };
    if (route.kind == Route::tiles) {
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<int32_t> ids = slice(tile_ptr, tile_idx, route.index, r);
        if (!plan.tiles.aligned()) {
          std::vector<int32_t> aligned, columns;
          add_free_row(plan.tiles, grid, r, n, ids, aligned, columns);
          merge(lists.columns[size_t(r)], columns);
          ids = std::move(aligned);
        }
        merge(lists.tiles[size_t(r)], ids);
      }
      if (col_ptr.defined())
        for (size_t g = 0; g < lists.columns.size(); ++g)
          merge(lists.columns[g], slice(col_ptr, col_idx, route.index, int64_t(g)));
      continue;
    }
    Window w{n, n, 0};  // dense
    if (route.kind == Route::window) w = plan.windows.at(size_t(route.index));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = r * grid.q_tile, last = std::min(n, first + grid.q_tile) - 1;
      std::vector<int32_t> ids;
      for (int64_t t = 0; t * grid.k_tile <= last; ++t) {
        const int64_t key = t * grid.k_tile, key_end = std::min(n, key + grid.k_tile);
        if (key < w.sink || key_end > first - w.local + 1 || last >= n - w.last) ids.push_back(int32_t(t));
      }
      merge(lists.tiles[size_t(r)], ids);
    }
  }
}

at::Tensor pack(const std::vector<HeadLists>& heads, std::vector<std::vector<int32_t>> HeadLists::*member,
                at::Tensor& ptr) {
  int64_t longest = 1;
  const auto groups = int64_t((heads[0].*member).size());
  ptr = at::zeros({int64_t(heads.size()), groups + 1}, at::kInt);
  for (size_t h = 0; h < heads.size(); ++h) {
    int64_t used = 0;
    for (int64_t g = 0; g < groups; ++g) {
      used += int64_t((heads[h].*member)[size_t(g)].size());
      if (used > std::numeric_limits<int32_t>::max())
        throw Unsupported("the plan has too many entries for int32 pointers");
      ptr.data_ptr<int32_t>()[int64_t(h) * (groups + 1) + g + 1] = int32_t(used);
    }
    longest = std::max(longest, used);
  }
  const at::Tensor idx = at::zeros({int64_t(heads.size()), longest}, at::kInt);
  for (size_t h = 0; h < heads.size(); ++h) {
    int32_t* to = idx.data_ptr<int32_t>() + int64_t(h) * longest;
    for (const auto& list : heads[h].*member) to = std::copy(list.begin(), list.end(), to);
  }
  return idx;
}

/// Removes columns that lie inside tiles of every row of their group, and returns how many there were. A
/// column that only some rows of its group cover has no place in a file: Unsupported.
int64_t drop_covered_columns(const Grid& grid, std::vector<HeadLists>& heads) {
  int64_t dropped = 0;
  for (size_t h = 0; h < heads.size(); ++h)
    for (size_t g = 0; g < heads[h].columns.size(); ++g) {
      const size_t first = g * size_t(grid.col_rows),
                   end = std::min(heads[h].tiles.size(), first + size_t(grid.col_rows));
      std::erase_if(heads[h].columns[g], [&](int32_t column) {
        size_t covering = 0;
        for (size_t r = first; r < end; ++r)
          covering +=
              std::binary_search(heads[h].tiles[r].begin(), heads[h].tiles[r].end(), column / grid.k_tile);
        if (covering != 0 && covering != end - first)
          throw Unsupported(str("head ", h, ", column group ", g, ": key ", column, " counts twice for ",
                                covering, " of ", end - first, " tile rows; a plan file can not hold that"));
        dropped += covering != 0;
        return covering != 0;
      });
    }
  return dropped;
}

}  // namespace

ExpandedPlan expand_plan(const AttentionPlan& plan, int64_t n) {
  ExpandedPlan out;
  const AttentionPlan* covered = plan.resume ? plan.resume->covered.get() : nullptr;
  Grid grid;
  bool free_tiles = false;
  auto adopt = [&](const AttentionPlan& p, bool first) {
    if (!p.tiles.tile_ptr.defined()) return;
    // Free tiles: an aligned grid in which the row's own queries are whole tiles.
    const int k_tile = p.tiles.aligned() ? p.tiles.k_tile : std::gcd(p.tiles.q_tile, p.tiles.k_tile);
    if (!first && (p.tiles.q_tile != grid.q_tile || k_tile != grid.k_tile))
      throw Unsupported(str("the plan's passes use tiles of ", grid.q_tile, "x", grid.k_tile, " and ",
                            p.tiles.q_tile, "x", k_tile, "; a plan file has one grid"));
    grid.q_tile = p.tiles.q_tile;
    grid.k_tile = k_tile;
    if (has_columns(p)) grid.col_rows = p.tiles.col_rows;
    free_tiles = free_tiles || !p.tiles.aligned();
  };
  adopt(plan, true);
  if (covered) adopt(*covered, !plan.tiles.tile_ptr.defined());
  if (covered && has_columns(*covered) && has_columns(plan) && covered->tiles.col_rows != plan.tiles.col_rows)
    throw Unsupported("the plan's passes group their columns differently; a plan file has one grouping");

  if (free_tiles && grid.col_rows != 1)
    throw Unsupported(
        "tiles that start anywhere beside columns shared by several rows have no place in a plan file");
  const bool columns = free_tiles || has_columns(plan) || (covered && has_columns(*covered));
  const int64_t rows = ceil_div(n, grid.q_tile);
  std::vector<HeadLists> heads(plan.heads.size());
  for (HeadLists& h : heads) {
    h.tiles.resize(size_t(rows));
    if (columns) h.columns.resize(size_t(ceil_div(rows, grid.col_rows)));
  }
  if (covered) add_lists(*covered, grid, n, heads);
  add_lists(plan, grid, n, heads);

  auto leave_out = [&](const std::string& what) {
    out.left_out += (out.left_out.empty() ? "" : "; ") + what;
  };
  if (plan.resume && plan.resume->overlap_allowed)
    if (const int64_t dropped = drop_covered_columns(grid, heads))
      leave_out(str("second counts of ", dropped, " columns that lie in tiles of the first pass (over ",
                    heads.size(), " heads)"));

  AttentionPlan& p = out.plan;
  p.tiles.q_tile = grid.q_tile;
  p.tiles.k_tile = grid.k_tile;
  p.tiles.tile_idx = pack(heads, &HeadLists::tiles, p.tiles.tile_ptr);
  if (columns) {
    p.tiles.col_rows = grid.col_rows;
    p.tiles.col_idx = pack(heads, &HeadLists::columns, p.tiles.col_ptr);
  }
  for (size_t h = 0; h < heads.size(); ++h) p.heads.push_back({Route::tiles, int32_t(h)});
  if (plan.complement) leave_out(str("pooled complement of ", plan.complement->block, " keys"));
  return out;
}

void write_plan_file(const std::string& path, const AttentionPlan& p, int64_t n,
                     const std::map<std::string, std::string>& facts) {
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"tile_ptr", p.tiles.tile_ptr},
                                                             {"tile_idx", p.tiles.tile_idx}};
  std::map<std::string, std::string> meta = facts;
  meta["format"] = "prefillbench-plan-1";
  meta["block_q"] = std::to_string(p.tiles.q_tile);
  meta["block_k"] = std::to_string(p.tiles.k_tile);
  meta["seq_len"] = std::to_string(n);
  if (has_columns(p)) {
    tensors.emplace_back("col_ptr", p.tiles.col_ptr);
    tensors.emplace_back("col_idx", p.tiles.col_idx);
    meta["col_group"] = std::to_string(int64_t(p.tiles.q_tile) * p.tiles.col_rows);
  }
  write_safetensors(path, tensors, meta);
}

namespace {

/// A positive integer of the metadata.
int64_t meta_number(const SafetensorsFile& file, const std::string& key) {
  const std::string& text = file.meta(key);
  int64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || value < 1 ||
      value > std::numeric_limits<int32_t>::max())
    throw InputError(str(file.path(), ": metadata ", key, " = '", text, "' is no positive number"));
  return value;
}

/// Reads `name` as int32 [q_heads, columns]; columns < 0: any number.
at::Tensor index_tensor(const SafetensorsFile& file, const std::string& name, int64_t q_heads,
                        int64_t columns) {
  const at::Tensor t = file.tensor(name);
  const auto shape = t.sizes().vec();
  const std::string wanted =
      str("int32 [", q_heads, ", ", columns < 0 ? std::string("any") : std::to_string(columns), "]");
  if (t.scalar_type() != at::kInt || t.dim() != 2 || shape[0] != q_heads ||
      (columns >= 0 && shape[1] != columns))
    throw InputError(str(file.path(), ": tensor ", name, " is ", at::toString(t.scalar_type()), " ",
                         shape_text(shape), ", expected ", wanted));
  return t.clone();  // the mapping is read-only memory
}

void check_pointers(const SafetensorsFile& file, const std::string& ptr_name, const at::Tensor& ptr,
                    const std::string& idx_name, const at::Tensor& idx, const char* unit) {
  for (int64_t h = 0; h < ptr.size(0); ++h) {
    const int32_t* p = ptr.const_data_ptr<int32_t>() + h * ptr.size(1);
    if (p[0] != 0)
      throw InputError(str(file.path(), ": ", ptr_name, " head ", h, " starts at ", p[0], ", not at 0"));
    for (int64_t r = 0; r + 1 < ptr.size(1); ++r) {
      if (p[r + 1] < p[r])
        throw InputError(str(file.path(), ": ", ptr_name, " head ", h, " falls from ", p[r], " to ", p[r + 1],
                             " at ", unit, " ", r));
      if (p[r + 1] > idx.size(1))
        throw InputError(str(file.path(), ": ", ptr_name, " head ", h, " ", unit, " ", r, " ends at ",
                             p[r + 1], ", but ", idx_name, " has ", idx.size(1), " entries per head"));
    }
  }
}

}  // namespace

AttentionPlan read_plan_file(const std::string& path, int q_heads, int64_t n) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  AttentionPlan plan;
  TileSet& t = plan.tiles;
  t.q_tile = int(meta_number(file, "block_q"));
  t.k_tile = int(meta_number(file, "block_k"));
  if (file.metadata().count("seq_len") && meta_number(file, "seq_len") != n)
    throw InputError(
        str(path, ": the plan is for ", file.meta("seq_len"), " tokens (seq_len), the tensors have ", n));
  const int64_t rows = ceil_div(n, t.q_tile);
  t.tile_ptr = index_tensor(file, "tile_ptr", q_heads, rows + 1);
  t.tile_idx = index_tensor(file, "tile_idx", q_heads, -1);
  check_pointers(file, "tile_ptr", t.tile_ptr, "tile_idx", t.tile_idx, "row");
  if (file.has("col_ptr") || file.has("col_idx")) {
    const int64_t group = meta_number(file, "col_group");
    if (group % t.q_tile != 0)
      throw InputError(
          str(path, ": metadata col_group = ", group, " is no multiple of block_q = ", t.q_tile));
    t.col_rows = int(group / t.q_tile);
    t.col_ptr = index_tensor(file, "col_ptr", q_heads, ceil_div(n, group) + 1);
    t.col_idx = index_tensor(file, "col_idx", q_heads, -1);
    check_pointers(file, "col_ptr", t.col_ptr, "col_idx", t.col_idx, "group");
  }
  for (int h = 0; h < q_heads; ++h) plan.heads.push_back({Route::tiles, h});
  try {
    check(plan, q_heads, n);
  } catch (const BrokenPlan& e) {
    // In a file every head has its own pattern: say "head".
    std::string text = e.what();
    const std::string lead = "broken plan: pattern ";
    if (text.rfind(lead, 0) == 0)
      text = (text.find(" column group ") != std::string::npos ? "col_idx head " : "tile_idx head ") +
             text.substr(lead.size());
    throw InputError(str(path, ": ", text));
  }
  return plan;
}

}  // namespace prefill
