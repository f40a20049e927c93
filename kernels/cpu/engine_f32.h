// The two matrix products of a task in float32 vectors, for inputs of any dtype (see micro.h for the layout).
//
// What an engine offers to attend_simd.h: pack_q for a panel of queries; for each group of a chunk's keys either adopt
// (use a copy made before) or pack_key, pack_value, pad and finish_values; scores() of a panel against the packed
// keys, and accumulate() of the packed values.
#pragma once
#include "kernels/cpu/carve.h"
#include "kernels/cpu/micro.h"
#include "kernels/cpu/work.h"

namespace prefill::kernels::cpu {
namespace {

template <class Isa>
class EngineF32 {
 public:
  using I = Isa;
  using V = typename I::V;
  static constexpr int L = lanes<I>, W = I::width, NV = I::vectors;
  static constexpr int key_step = 4;           ///< scores() and accumulate() take multiples of it
  static constexpr int group = kMaxChunkKeys;  ///< keys that are packed together
  static constexpr int chunk = 64;      ///< keys at a time: scores, K and V stay near the first cache level
  /// lanes * head_dim of a task: its Q and O stay in the second cache level (512 KiB; 1 MiB and more with AVX-512)
  static constexpr int lane_budget = W == 16 ? 32768 : 16384;

  static int64_t padded(int dim) { return dim; }
  static int64_t q_floats(int dim) { return int64_t(dim) * L; }

  EngineF32(Carve& c, const Problem& p) : dtype_(p.qkv.dtype), dim_(p.qkv.head_dim), scale_(p.qkv.scale) {
    k_ = c.floats(int64_t(kMaxChunkKeys) * dim_);
    v_ = c.floats(int64_t(kMaxChunkKeys) * dim_);
  }

  void begin() {}
  void end() {}

  /// n <= L rows of q from `q` on into a panel; rows is scratch [L][dim].
  void pack_q(const void* q, int64_t stride, int n, float* rows, float* panel) {
    for (int i = 0; i < L; ++i) {
      float* row = rows + int64_t(i) * dim_;
      if (i >= n) {
        fill<I>(row, dim_, 0.f);
        continue;
      }
      widen<I>(dtype_, at_element(dtype_, q, i * stride), row, dim_);
      for (int d = 0; d < dim_; ++d) row[d] *= scale_;
    }
    transpose<I>(rows, dim_, L, dim_, panel, L);
  }

  bool adopt(const Chunk&, int, int) { return false; }
  /// The copies cost 1/lanes of the arithmetic and spare the micro-kernels strides, types, gathers and aliasing.
  void pack_key(int j, const void* row) { widen<I>(dtype_, row, k_ + int64_t(j) * dim_, dim_); }
  void pack_value(int j, const void* row) { widen<I>(dtype_, row, v_ + int64_t(j) * dim_, dim_); }
  void pad(int from, int to) {
    fill<I>(k_ + int64_t(from) * dim_, int64_t(to - from) * dim_, 0.f);
    fill<I>(v_ + int64_t(from) * dim_, int64_t(to - from) * dim_, 0.f);
  }
  void finish_values(int) {}

  /// s[keys][L] = scaled scores + bias; top: their maximum per lane.
  void scores(int keys, const float* panel, float bias, float* s, V* top) {
    score_panel<I>(k_, dim_, keys, panel, dim_, bias, s, top);
  }
  /// ot[dim][L] = ot * alpha + V^T p; alpha null: 1.
  void accumulate(int keys, const float* p, const float* alpha, float* ot) {
    value_panel<I>(v_, dim_, keys, p, dim_, alpha, ot);
  }

 private:
  Dtype dtype_;
  int dim_;
  float scale_;
  float *k_, *v_;  // [chunk keys][dim]
};

}  // namespace
}  // namespace prefill::kernels::cpu
