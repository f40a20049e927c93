// The two matrix products of a task on AMX tiles, bf16 in, float32 out. Same transposed layout as micro.h:
//   S^T[keys][lanes] = K Q^T     A: 16 keys by 32 dims of K, row-major as it is;  B: Q^T, two dims to a word
//   O^T[dim][lanes] += V^T P^T   A: 16 dims by 32 keys of V^T;                    B: P^T, two keys to a word
// so that softmax stays a vertical operation, and P^T gets its paired form from two neighbouring rows without a
// shuffle. Only V has to be transposed: once per call for blocks of 32 keys (pack_block), and on the spot for keys
// that do not fill such a block (columns, edges of windows, tiles that start anywhere). Blocks of 2 by 2 tiles: each load
// feeds two products.
#pragma once
#include "kernels/cpu/carve.h"
#include "kernels/cpu/micro.h"
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/work.h"

namespace prefill::kernels::cpu {
namespace {

class EngineAmx {
 public:
  using I = Avx512;
  using V = I::V;
  static constexpr int L = lanes<I>, W = I::width, NV = I::vectors;  // 32 queries: two tiles side by side
  static constexpr int key_step = 32, group = 32;
  static constexpr int chunk = 128;  ///< keys at a time: O is loaded and stored once a chunk
  static constexpr int lane_budget = 32768;

  static int64_t padded(int dim) { return round_up(dim, 32); }
  static int64_t q_floats(int dim) { return padded(dim) / 2 * L; }

  EngineAmx(Carve& c, const Problem& p)
      : p_args_(p), dim_(p.qkv.head_dim), pdim_(int(padded(p.qkv.head_dim))), scale_(p.qkv.scale) {
    k_ = reinterpret_cast<uint16_t*>(c.floats(int64_t(kMaxChunkKeys) * pdim_ / 2));
    v_ = reinterpret_cast<uint16_t*>(c.floats(int64_t(kMaxChunkKeys) * pdim_ / 2));
    pairs_ = c.floats(int64_t(16) * pdim_);
    vt_ = c.floats(int64_t(kMaxChunkKeys) * pdim_ / 2);
    p_ = c.floats(int64_t(kMaxChunkKeys) * L / 2);
  }

  void begin() {
    alignas(64) uint8_t config[64] = {1};  // palette 1
    for (int t = 0; t < 8; ++t) {
      config[16 + 2 * t] = 64;  // bytes per row
      config[48 + t] = 16;      // rows
    }
    _tile_loadconfig(config);
  }
  void end() { _tile_release(); }

  void pack_q(const void* q, int64_t stride, int n, float* rows, float* panel) {
    const int words = pdim_ / 2;
    for (int i = 0; i < L; ++i) {
      uint16_t* row = reinterpret_cast<uint16_t*>(rows + int64_t(i) * words);
      copy_row(i < n ? static_cast<const uint16_t*>(q) + i * stride : nullptr, row);
    }
    for (int step = 0; step < pdim_ / 32; ++step)
      for (int side = 0; side < 2; ++side)
        transpose<I>(rows + side * 16 * words + step * 16, words, 16, 16, panel + (step * 2 + side) * 256, 16);
  }

  /// True when keys [from, from + 32) of the chunk need no packing: they are one block of the packed K and V^T, which are
  /// then used in place, or 32 neighbours anywhere, whose K is used where it lies and whose V is transposed from there.
  bool adopt(const Chunk& c, int from, int kv) {
    const int g = from / 32;
    k_block_[g] = k_ + int64_t(from) * pdim_;
    k_stride_[g] = pdim_;
    float* const vt = vt_ + int64_t(from) * pdim_ / 2;
    vt_block_[g] = vt;
    const int last = int(least(c.count, from + 32)) - 1;
    if (c.source != Chunk::span || c.pos[last] - c.pos[from] != last - from) return false;
    if (p_args_.packed && c.pos[from] % 32 == 0) {
      const uint16_t* at = packed_block(p_args_, pdim_, kv, c.pos[from] / 32);
      k_block_[g] = at;
      vt_block_[g] = reinterpret_cast<const float*>(at + 32 * pdim_);
      return true;
    }
    if (last - from != 31 || pdim_ != dim_) return false;
    const QkvView& a = p_args_.qkv;
    const int64_t key = c.pos[from];
    k_block_[g] = static_cast<const uint16_t*>(a.k) + kv * a.k_head_stride + key * a.k_row_stride;
    k_stride_[g] = a.k_row_stride;
    transpose_values(static_cast<const uint16_t*>(a.v) + kv * a.v_head_stride + key * a.v_row_stride, a.v_row_stride, vt);
    return true;
  }

  void pack_key(int j, const void* row) { copy_row(static_cast<const uint16_t*>(row), k_ + int64_t(j) * pdim_); }
  void pack_value(int j, const void* row) { copy_row(static_cast<const uint16_t*>(row), v_ + int64_t(j) * pdim_); }
  void pad(int from, int to) {
    for (int j = from; j < to; ++j) {
      copy_row(nullptr, k_ + int64_t(j) * pdim_);
      copy_row(nullptr, v_ + int64_t(j) * pdim_);
    }
  }
  void finish_values(int from) { transpose_values(v_ + int64_t(from) * pdim_, pdim_, vt_ + int64_t(from) * pdim_ / 2); }

  /// Bytes of the packed K and V^T of all key/value heads: blocks of [32][pdim] and [pdim][32].
  static size_t packed_bytes(const QkvView& a) {
    return size_t(a.kv_heads * ceil_div(a.seq_len, 32) * 32 * padded(a.head_dim) * 4);
  }
  static uint16_t* packed_block(const Problem& p, int64_t pdim, int64_t kv, int64_t block) {
    return static_cast<uint16_t*>(p.packed) + (kv * ceil_div(p.qkv.seq_len, 32) + block) * 64 * pdim;
  }
  void pack_block(int64_t kv, int64_t block) {
    const QkvView& a = p_args_.qkv;
    uint16_t* at = packed_block(p_args_, pdim_, kv, block);
    const auto* k = static_cast<const uint16_t*>(a.k) + kv * a.k_head_stride;
    const auto* v = static_cast<const uint16_t*>(a.v) + kv * a.v_head_stride;
    for (int64_t j = 0; j < 32; ++j) {
      const int64_t row = block * 32 + j;
      copy_row(row < a.seq_len ? k + row * a.k_row_stride : nullptr, at + j * pdim_);
      copy_row(row < a.seq_len ? v + row * a.v_row_stride : nullptr, v_ + j * pdim_);
    }
    transpose_values(v_, pdim_, reinterpret_cast<float*>(at + 32 * pdim_));
  }

  void scores(int keys, const float* panel, float bias, float* s, V* top) {
    for (int b = 0; b < keys; b += 32) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      const uint16_t* k = k_block_[b / 32];
      const int64_t stride = k_stride_[b / 32];
      for (int step = 0; step < pdim_ / 32; ++step) {
        _tile_loadd(4, k + step * 32, stride * 2);
        _tile_loadd(5, k + 16 * stride + step * 32, stride * 2);
        _tile_loadd(6, panel + step * 512, 64);
        _tile_loadd(7, panel + step * 512 + 256, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      float* at = s + int64_t(b) * L;
      _tile_stored(0, at, L * 4);
      _tile_stored(1, at + 16, L * 4);
      _tile_stored(2, at + 16 * L, L * 4);
      _tile_stored(3, at + 16 * L + 16, L * 4);
    }
    const V scale = I::set1(scale_), shift = I::set1(bias);
    for (int j = 0; j < keys; ++j)
      for (int v = 0; v < NV; ++v) {
        const V x = I::fma(I::load(s + j * L + v * W), scale, shift);
        I::store(s + j * L + v * W, x);
        top[v] = I::max(top[v], x);
      }
  }

  void accumulate(int keys, const float* p, const float* alpha, float* ot) {
    pair_probs(keys, p);
    if (alpha) {
      const V a0 = I::load(alpha), a1 = I::load(alpha + W);
      for (int d = 0; d < pdim_; ++d) {
        I::store(ot + d * L, I::mul(I::load(ot + d * L), a0));
        I::store(ot + d * L + W, I::mul(I::load(ot + d * L + W), a1));
      }
    }
    for (int d = 0; d < pdim_; d += 32) {
      float* o = ot + int64_t(d) * L;
      _tile_loadd(0, o, L * 4);
      _tile_loadd(1, o + 16, L * 4);
      _tile_loadd(2, o + 16 * L, L * 4);
      _tile_loadd(3, o + 16 * L + 16, L * 4);
      for (int b = 0; b < keys; b += 32) {
        const float* vt = vt_block_[b / 32] + d * 16;
        _tile_loadd(4, vt, 64);
        _tile_loadd(5, vt + 256, 64);
        _tile_loadd(6, p_ + b * 16, 64);
        _tile_loadd(7, p_ + b * 16 + 256, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, o, L * 4);
      _tile_stored(1, o + 16, L * 4);
      _tile_stored(2, o + 16 * L, L * 4);
      _tile_stored(3, o + 16 * L + 16, L * 4);
    }
  }

 private:
  /// dim values, then zeros up to pdim; null: zeros.
  void copy_row(const uint16_t* from, uint16_t* to) const {
    int d = 0;
    if (from)
      for (; d < dim_; d += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + d),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + d)));
    for (; d < pdim_; d += 8) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + d), _mm_setzero_si128());
  }

  /// vt[pdim][32 keys] of 32 rows of pdim values, `stride` apart: pairs of keys become words, then words are transposed.
  void transpose_values(const uint16_t* v, int64_t stride, float* vt) {
    for (int r = 0; r < 16; ++r) {
      const uint16_t *even = v + 2 * r * stride, *odd = even + stride;
      for (int d = 0; d < pdim_; d += 16) {
        const __m512i lo = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even + d)));
        const __m512i hi = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd + d)));
        _mm512_storeu_si512(pairs_ + r * pdim_ + d, _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16)));
      }
    }
    transpose<I>(pairs_, pdim_, 16, pdim_, vt, 16);
  }

  /// p[keys][L] -> p_[key block of 32][side][16 pairs][16 queries], rounded to bf16 (to nearest; ties up, which the
  /// sums over hundreds of keys do not see).
  void pair_probs(int keys, const float* p) {
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(int(0xffff0000u));
    for (int j = 0; j < keys; j += 2)
      for (int side = 0; side < 2; ++side) {
        const __m512i even = _mm512_castps_si512(_mm512_loadu_ps(p + j * L + side * 16));
        const __m512i odd = _mm512_castps_si512(_mm512_loadu_ps(p + (j + 1) * L + side * 16));
        const __m512i lo = _mm512_srli_epi32(_mm512_add_epi32(even, half), 16);
        const __m512i hi = _mm512_and_si512(_mm512_add_epi32(odd, half), upper);
        _mm512_storeu_si512(p_ + (j / 32 * 2 + side) * 256 + j % 32 / 2 * 16, _mm512_or_si512(lo, hi));
      }
  }

  const Problem& p_args_;
  int dim_, pdim_;
  float scale_;
  uint16_t *k_, *v_;  // [chunk keys][pdim]
  float *pairs_, *vt_, *p_;
  const uint16_t* k_block_[kMaxChunkKeys / 32];  // 32 rows of pdim each,
  int64_t k_stride_[kMaxChunkKeys / 32];         // so far apart
  const float* vt_block_[kMaxChunkKeys / 32];    // [pdim][16 words of two keys]
};

}  // namespace
}  // namespace prefill::kernels::cpu
