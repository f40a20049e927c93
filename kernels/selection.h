// The selection kernels' part of the surface that api.h describes: same conventions, same status codes.
#pragma once
#include "kernels/api.h"

namespace prefill::kernels {

/// Columns of the true cells (bytes of 0 or 1) of mask [patterns,rows,cols], contiguous, row after row: row r of pattern p
/// from idx[p*idx_stride + ptr[p*ptr_stride + r]] on, where ptr counts them. values [patterns,cols] or null: written in
/// place of the columns.
Result mask_columns_cuda(const uint8_t* mask, int patterns, int64_t rows, int64_t cols, const int32_t* ptr,
                         int64_t ptr_stride, const int32_t* values, int32_t* idx, int64_t idx_stride, void* stream);
/// energy [q_heads or kv_heads][rows][cols]: sum over the queries i of a tile (of all heads of a group when per_kv_head)
/// that see key block c of exp(scale * q_i . kbar_c - M), M the largest of the tile's logits; 0 where no query sees it.
/// kbar [kv_heads,cols,dim] contiguous in q's dtype. first_token: a query sees a block from its first key on, else from
/// its last. padded_rows: zero queries fill the last tile and take part.
Result tile_energy_cuda(const void* q, const void* kbar, Dtype, int q_heads, int kv_heads, int64_t seq_len, int dim,
                        int64_t q_head_stride, int64_t q_row_stride, float scale, int q_tile, int k_tile, bool first_token,
                        bool per_kv_head, bool padded_rows, float* energy, void* stream);
/// AnchorAttention's candidates: hits [q_heads][all_groups][n] bytes; for groups 1 to groups-1 the bytes of keys
/// [init, (group + 1 - local) * span) become whether some of the group's `step` pooled queries (qbar [q_heads,blocks,dim]
/// float32) reaches scale * qbar.k >= bar [q_heads,blocks]; others are left as they are. step at most 16.
struct StripeArgs {
  const float *qbar, *bar;
  const void* k;
  Dtype dtype;
  int q_heads, kv_heads, dim, blocks, step, groups, all_groups;
  int64_t n, k_head_stride, k_row_stride, init, local_groups, span;
  float scale;
  uint8_t* hits;
};
Result stripe_hits_cuda(const StripeArgs&, void* stream);
/// The best tiles of every row, mask [heads][rows][cols] bytes. Forced candidates come first and spend of the target; of
/// equal scores the smaller column goes first. By mass (shares not null): tiles until they hold shares[head] of the sum
/// of the row's candidates, the one that reaches it included; infinite: all. By count: counts at
/// head*count_head_stride + row*count_row_stride. cols at most 16384.
struct SelectArgs {
  const float* scores;        ///< [heads][rows][cols]; not negative when they are mass
  const uint8_t* candidates;  ///< [candidate_heads][rows][cols], candidate_heads 1 or heads
  const uint8_t* forced;      ///< likewise, or null
  int64_t heads, rows, cols, candidate_heads, forced_heads;
  const double* shares;       ///< [share_heads], share_heads 1 or heads, or null
  int64_t share_heads;
  const int64_t* counts;
  int64_t count_head_stride, count_row_stride;
  uint8_t* mask;
};
Result select_tiles_cuda(const SelectArgs&, void* stream);
/// mass [heads][rows/block][cols/block]: softmax(scale * scores) over the columns up to the row's own position (first_row +
/// row), summed over the block x block cells of scores [heads,rows,cols] contiguous; rows at real_rows and after count
/// nothing. block a power of two from 4 to 128 that divides rows and cols.
struct BlockSumArgs {
  const float* scores;
  int64_t heads, rows, cols, first_row, real_rows;
  int block;
  float scale;
  float* mass;
  int64_t head_stride, row_stride;  ///< of mass, in elements
};
Result softmax_block_sums_cuda(const BlockSumArgs&, void* stream);
/// XAttention's masses, mass [q_heads][blocks][blocks] with blocks = ceil(seq_len / block): tokens in groups
/// of `stride`, the score of a query and a key group is scale * the sum over i of q_i . k_key_order[i] (zeros
/// past the end); softmax over the key groups up to the query group's own; summed over the groups of each
/// pair of blocks; 0 above the diagonal. Hopper only. workspace: strided_mass_cuda_workspace() bytes, 16-byte
/// aligned; 0: an unknown case.
struct StridedArgs {
  const void *q, *k;
  Dtype dtype;  ///< bf16, f16
  int q_heads, kv_heads, dim;
  int64_t seq_len, q_head_stride, q_row_stride, k_head_stride, k_row_stride;
  int stride, block;         ///< 2 to 64 groups a block, a power of two
  const int64_t* key_order;  ///< [stride], host memory
  float scale;
  bool rounded;  ///< scores are rounded to dtype before they are scaled
  float* mass;
};
size_t strided_mass_cuda_workspace(const StridedArgs&);
Result strided_mass_cuda(const StridedArgs&, void* workspace, void* stream);
/// counts[r]: how many of the largest entries of row r of x [rows,n] (not negative) sum to `mass` at least; n where all do
/// not, at least 1.
Result mass_count_cuda(const float* x, int64_t rows, int64_t n, float mass, int64_t* counts, void* stream);
/// Block means of queries against block means of keys, for the next two.
struct BlockMeansArgs {
  const void* q;
  Dtype dtype;  ///< bf16, f16
  int q_heads, kv_heads, dim;
  int64_t seq_len, q_head_stride, q_row_stride;
  const float* key_mean;  ///< [kv_heads][blocks][dim]
  int block, blocks;
  float scale;
};
/// probs [q_heads][blocks]: softmax over the key blocks of scale * (mean of the last `rows` queries) . (mean of the block).
Result tail_block_means_cuda(const BlockMeansArgs&, int64_t rows, float* probs, void* stream);
/// mask [q_heads][blocks][blocks] |= for heads whose `aware` byte is not 0, the cells of the pooled map (softmax over the key
/// blocks up to the row's own of scale * query mean . key mean) that hold `mass` of the whole map: the largest, the one that
/// reaches it included; of equal ones the first, row by row. map: room for [q_heads][blocks][blocks] floats.
Result add_aware_blocks_cuda(const BlockMeansArgs&, const uint8_t* aware, double mass, float* map, uint8_t* mask, void* stream);
/// From vertical and slash [heads][n] (sums over keys and distances, not negative): sums over blocks of `block` entries; a
/// head is aware when the square root of the Jensen-Shannon divergence (natural log) of its vertical bins from from_means
/// [heads][blocks] is below tau (from_means null: none is); verticals and slashes are `least` there, else
/// count / count_unit + 1 between least and most.
struct StripeChoiceArgs {
  const float *vertical, *slash, *from_means;
  const int64_t *vertical_count, *slash_count;  ///< [heads]
  int64_t heads, n;
  int block, blocks;
  int64_t count_unit, least, most;
  double tau;
  float *vertical_bins, *slash_bins;  ///< [heads][blocks]
  int64_t *verticals, *slashes;       ///< [heads]
  uint8_t* aware;                     ///< [heads]
};
Result stripe_choice_cuda(const StripeChoiceArgs&, void* stream);
/// mask [rows][cols]: the counts[row] largest of scores (not negative) of each row, of equal ones those of the smaller
/// column; the first `forced` columns come before all.
Result top_counts_cuda(const float* scores, const int64_t* counts, int64_t rows, int64_t cols, int64_t forced, uint8_t* mask,
                       void* stream);
/// Tiles and columns that cover vertical lines and slashes (methods/parts/vertical_slash.h), in two calls: the first finds
/// the tiles' distances from a row's first query and counts every row's entries, the second writes the lists from the
/// pointers that the caller made of the counts.
struct SlashCoverArgs {
  const int32_t *columns, *column_counts;  ///< [heads] lists column_stride apart, ascending; [heads], count_stride apart
  int64_t column_stride, count_stride;
  const uint8_t* distances;                ///< [heads][n] bytes
  int64_t heads, n;                        ///< n at most slash_cover_most_tokens()
  int q_tile, tile;
  int32_t *offsets, *offset_counts;        ///< [heads][n / tile + 2] ascending; [heads]
  uint8_t* covered;                        ///< [heads][n]: a key so far before the first query lies in a tile
};
int64_t slash_cover_most_tokens();
/// tiles, columns [heads][rows + 1]: entry r + 1 counts those of row r, entry 0 is 0.
Result slash_cover_counts_cuda(const SlashCoverArgs&, int32_t* tiles, int32_t* columns, void* stream);
/// Rows begin at tile_ptr and col_ptr [heads][rows + 1] in tile_idx and col_idx, tile_stride and col_stride apart.
Result slash_cover_lists_cuda(const SlashCoverArgs&, const int32_t* tile_ptr, const int32_t* col_ptr, int32_t* tile_idx,
                              int64_t tile_stride, int32_t* col_idx, int64_t col_stride, void* stream);
/// mask [heads][blocks][blocks]: (vertical[c] or slash[r - c]) and c <= r, of bytes [heads][blocks].
Result stripe_mask_cuda(const uint8_t* vertical, const uint8_t* slash, int64_t heads, int64_t blocks, uint8_t* mask, void* stream);

}  // namespace prefill::kernels
