// Plans as safetensors files that anybody can write: a selection leaves one program and is executed in
// another.
//
// Tensors, one row per query head: tile_ptr int32 [Hq, rows+1], tile_idx int32 [Hq, max] and, when single
// keys are used, col_ptr int32 [Hq, groups+1], col_idx int32 [Hq, max]. Metadata (strings): block_q, block_k,
// col_group (queries that share a column list, a multiple of block_q; needed with columns), seq_len (optional
// when reading). Entries past the last pointer are ignored. The invariants are those of TileSet
// (core/plan.h).
#pragma once
#include <map>
#include <string>

#include "core/plan.h"

namespace prefill {

/// A plan with every head's pattern written out on one tile grid, in a file's form: heads[h] = {tiles, h}.
struct ExpandedPlan {
  AttentionPlan plan;
  std::string left_out;  ///< what tiles and columns can not say ("pooled complement of ..."), "" when nothing
};

/// Dense heads become full rows of tiles. Tiles that start anywhere (k_step) become the aligned tiles that
/// they fill, and columns. Window heads become the tiles that hold a visible key, which is more than the
/// window where it cuts through tiles. A resumed plan is united with what it covered; both must use one grid
/// (throws Unsupported when they do not). Keys that a release counts twice (overlap_allowed) are in the file
/// once, and left_out says how many those are.
ExpandedPlan expand_plan(const AttentionPlan&, int64_t seq_len);

/// Writes an expanded plan; `facts` are added to the metadata (method, params, ...).
void write_plan_file(const std::string& path, const AttentionPlan& expanded, int64_t seq_len,
                     const std::map<std::string, std::string>& facts = {});

/// Reads anybody's file for a layer of `q_heads` heads and `seq_len` tokens. Throws InputError naming file,
/// tensor, head and row of the first thing that is wrong.
AttentionPlan read_plan_file(const std::string& path, int q_heads, int64_t seq_len);

}  // namespace prefill
