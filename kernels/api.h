// The whole surface between computation and everything above it: plain views, status codes, one function per op
// and device. No Torch, no exceptions and no STL containers cross it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace prefill::kernels {

enum class Dtype : int { f32 = 0, bf16 = 1, f16 = 2 };

/// Strides are in elements; the innermost stride is 1.
struct QkvView {
  const void *q, *k, *v;
  Dtype dtype;
  int q_heads, kv_heads, head_dim;
  int64_t seq_len;
  int64_t q_head_stride, q_row_stride;
  int64_t k_head_stride, k_row_stride;
  int64_t v_head_stride, v_row_stride;
  float scale;  ///< applied to q.k
};

struct RouteView {
  uint8_t kind;  ///< 0 dense, 1 window, 2 tiles (core/plan.h Route)
  int32_t index;
};
struct WindowView {
  int64_t sink, local, last;
};

/// See core/plan.h for the meaning and the invariants. All index arrays live where the kernel runs.
struct PlanView {
  const RouteView* heads;      ///< [q_heads], host memory
  const WindowView* windows;   ///< host memory
  int window_count;
  int q_tile, k_tile, k_step;  ///< tile id t starts at key t * k_step; k_step = k_tile: an aligned grid
  int patterns;
  int64_t rows;                ///< ceil(seq_len / q_tile)
  const int32_t* tile_ptr;     ///< [patterns][rows+1], row stride tile_ptr_stride
  const int32_t* tile_idx;
  int64_t tile_ptr_stride, tile_idx_stride;
  int col_rows;
  const int32_t* col_ptr;      ///< null: no columns
  const int32_t* col_idx;
  int64_t col_ptr_stride, col_idx_stride;
  // resume (null: start fresh): float32, natural log domain
  const float *resume_max, *resume_sum, *resume_acc;  ///< [Hq,N], [Hq,N], [Hq,N,D] contiguous
  // pooled complement (null: none)
  const void *pooled_k, *pooled_v;                    ///< [Hkv, ceil(N/pooled_block), D] contiguous, q's dtype
  int pooled_block;
};

struct OutView {
  void* out;                          ///< q's dtype; null when only the state is wanted
  int64_t out_head_stride, out_row_stride;
  float* lse;                         ///< [Hq,N] contiguous or null
  float *state_max, *state_sum, *state_acc;  ///< not null: hand over the softmax state (AttentionPlan resume)
  float* tile_mean;                   ///< [wanted heads][rows][ceil(N/k_tile)] or null; mass that resume or the
                                      ///< pooled complement holds counts in the row sum, but lies in no tile
  const uint8_t* want_tile_mean;      ///< [q_heads] host memory, or null
};

enum class Status : int { ok = 0, unsupported = 1, out_of_memory = 2, device_error = 3, bad_argument = 4 };

struct Result {
  Status status = Status::ok;
  const char* why = "";  ///< static text
};

// CPU (kernels/cpu).
/// The oracle: plain loops, float in, double sums. Never optimised.
Result attend_reference(const QkvView&, const PlanView&, const OutView&);
/// The fast one. threads <= 0: all.
Result attend_cpu(const QkvView&, const PlanView&, const OutView&, int threads);
/// "avx2", "avx512", "amx-bf16", "generic": what attend_cpu uses for this dtype on this machine.
const char* attend_cpu_isa(Dtype);
/// Causal softmax of the last `tail` queries (cut at seq_len) over all keys; each output may be null.
/// probs [Hq,tail,N]; vertical [Hq,N]: its column sums; slash [Hq,N]: its sums per distance query - key.
Result tail_probs_cpu(const QkvView&, int64_t tail, float* probs, float* vertical, float* slash, int threads);
/// Mean over tiles of `tile` rows of x [heads,seq_len,dim] (innermost stride 1) into out
/// [heads,ceil(seq_len/tile),dim] contiguous; true count in the last tile.
Result pool_mean_cpu(const void* x, Dtype, int heads, int64_t seq_len, int dim, int64_t head_stride,
                     int64_t row_stride, int tile, float* out, int threads);


// CUDA (kernels/cuda). Tensors and index arrays are device pointers of the current device; heads, windows and
// want_tile_mean stay host memory and may be freed on return. Everything is enqueued on `stream` (a cudaStream_t);
// nothing synchronises.
/// Whether the current device computes this; `why` says what it does not. Looks at shapes and routes only.
Result attend_cuda_supports(const QkvView&, const PlanView&, const OutView&);
/// "sm90a", "sm80": the kernels the current device runs.
const char* attend_cuda_isa();
/// Bytes of device scratch memory one call needs.
size_t attend_cuda_workspace(const QkvView&, const PlanView&, const OutView&);
/// Attention over a plan. bf16 and f16, head_dim 64 and 128, tensor bases and strides multiples of 16 bytes.
/// tile_mean needs lse. workspace: attend_cuda_workspace() bytes, 16-byte aligned, not shared with work of other streams.
Result attend_cuda(const QkvView&, const PlanView&, const OutView&, void* workspace, void* stream);

/// Mean over tiles of `tile` rows of x [heads,seq_len,dim] (device, innermost stride 1) into out
/// [heads,ceil(seq_len/tile),dim] contiguous; true count in the last tile.
Result pool_mean_cuda(const void* x, Dtype, int heads, int64_t seq_len, int dim, int64_t head_stride, int64_t row_stride,
                      int tile, float* out, void* stream);
/// Column sums [Hq,N] and distance sums [Hq,N] of the causal softmax of the last `tail` queries (cut at seq_len).
/// bf16 and f16, head_dim 64 and 128.
size_t tail_sums_cuda_workspace(const QkvView&, int64_t tail);
Result tail_sums_cuda(const QkvView&, int64_t tail, float* vertical, float* slash, void* workspace, void* stream);

}  // namespace prefill::kernels
