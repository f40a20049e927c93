// What one attention call has to do, cut into tasks, and the keys of each task as a stream of small chunks.
// Dense, window, tile, column and pooled keys all become the same thing here: a list of key positions. The
// kernels below see chunks only and need not know which plan they came from.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/api.h"
#include "kernels/cpu/scalar.h"

namespace prefill::kernels::cpu {

enum RouteKind : uint8_t { route_dense = 0, route_window = 1, route_tiles = 2 };

inline constexpr int kMaxChunkKeys = 128;
inline constexpr int32_t kNoKey = INT32_MAX;  ///< position of padding: after every query

/// Checks shapes, strides, pointers and every index the plan holds, so that the kernels may trust them.
Result validate(const QkvView&, const PlanView&, const OutView&);

/// Query heads of one key/value head that have the same route: they read the same keys.
struct Unit {
  int32_t kv_head;
  const int32_t* heads;
  int32_t head_count;
  RouteView route;
  int32_t tile_mean_slot;  ///< index into OutView::tile_mean, or -1 (then head_count may exceed 1)
};

/// Queries [q0, q1) of some heads of a unit. For tile routes and tile means, they lie in one tile row.
struct Task {
  const Unit* unit;
  int32_t first_head, head_count;  ///< within the unit
  int64_t q0, q1, row;
};

struct Problem {
  QkvView qkv;
  PlanView plan;
  OutView out;
  int64_t key_tiles;
  void* packed = nullptr;  ///< K and V in the form of IsaKernels::pack, or null
};

struct Chunk {
  enum Source : uint8_t { span, columns, pooled };
  int32_t pos[kMaxChunkKeys];  ///< ascending: key positions; pooled: block numbers
  int count = 0;
  Source source = span;
  int64_t tile = -1;  ///< the one key tile of a span chunk, when the task wants tile means
};

/// The keys of a task in a fixed order: spans ascending, then columns, then pooled blocks.
class KeyReader {
 public:
  /// capacity <= kMaxChunkKeys. by_tile: no span chunk crosses a tile's border.
  KeyReader(const Problem&, const Task&, int capacity, bool by_tile);
  /// False when there are no more keys.
  bool next(Chunk&);
  /// Only the columns again (the second pass of tile means).
  void restart_columns();

 private:
  bool next_run();
  bool fill_spans(Chunk&);
  bool fill_columns(Chunk&);
  bool fill_pooled(Chunk&);

  const Problem& p_;
  const Task& t_;
  int capacity_;
  bool by_tile_;
  int step_ = 0;                  // of dense and window spans
  int64_t run_ = 0, run_end_ = 0; // span being read
  const int32_t *tile_ = nullptr, *tile_begin_ = nullptr, *tile_end_ = nullptr;
  const int32_t *column_ = nullptr, *column_begin_ = nullptr, *column_end_ = nullptr;
  const int32_t* pooled_tile_ = nullptr;
  int64_t block_ = 0, block_end_ = 0;
};

/// Instruction-set specific half, one table per file kernels/cpu/isa_*.cpp.
struct IsaKernels {
  const char* name;  ///< "avx2"
  int lanes;         ///< queries per panel: task sizes are multiples of it where possible
  int lane_budget;   ///< lanes * head_dim of one task
  /// Bytes of scratch memory a thread needs for tasks of at most `heads` heads by `queries` queries.
  size_t (*scratch_bytes)(const Problem&, int64_t heads, int64_t queries, bool tile_mean);
  void (*attend)(const Problem&, const Task&, void* scratch);
  /// For instruction sets that want K and V in another form: bytes for all of them, and the making of one block of 32
  /// keys of one key/value head in Problem::packed. Null where nothing is packed; Problem::packed may stay null.
  size_t (*packed_bytes)(const QkvView&);
  void (*pack)(const Problem&, int64_t kv_head, int64_t block, void* scratch);
  size_t (*tail_scratch_bytes)(const QkvView&, int64_t tail, bool keep_probs);
  /// One query head of tail_probs_cpu; any output may be null.
  void (*tail)(const QkvView&, int head, int64_t tail, float* probs, float* vertical, float* slash, void* scratch);
  /// Mean of rows [r0, r1) into out[dim].
  void (*pool)(const void* x, Dtype, int64_t row_stride, int64_t r0, int64_t r1, int dim, float* out);
};
const IsaKernels& generic_kernels();
const IsaKernels& avx2_kernels();
const IsaKernels& avx512_kernels();
const IsaKernels& amx_kernels();  ///< attend for bf16 only

}  // namespace prefill::kernels::cpu
