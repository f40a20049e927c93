// 64 x 64 tiles with mma.sync: four warps of 16 query rows each. Rows of D elements lie in shared memory in pieces of
// 16 bytes; piece c of row r is stored at c ^ (r & 7), so that eight rows of one column never share a bank.
#pragma once
#include "kernels/cuda/primitives.cuh"

namespace prefill::kernels::cuda {

constexpr int kMmaRows = 64, kMmaKeys = 64, kMmaThreads = 128;

template <int D>
__device__ __forceinline__ uint32_t piece(uint32_t tile, int row, int column) {  // column in pieces of 8 elements
  return tile + row * (D * 2) + ((column ^ (row & 7)) << 4);
}

/// Fragments of the warp's 16 query rows.
template <int D>
__device__ __forceinline__ void load_queries(uint32_t (&q)[D / 16][4], uint32_t tile, int warp, int lane) {
#pragma unroll
  for (int i = 0; i < D / 16; ++i) load_matrix_x4(q[i], piece<D>(tile, warp * 16 + (lane & 15), 2 * i + (lane >> 4)));
}

/// s = Q K^T for 64 keys; element 4j + e is row e/2, key 8j + 2*(lane%4) + e%2.
template <int D, class T>
__device__ __forceinline__ void multiply_keys(float (&s)[32], const uint32_t (&q)[D / 16][4], uint32_t keys, int lane) {
#pragma unroll
  for (int i = 0; i < 32; ++i) s[i] = 0.f;
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      uint32_t b[4];
      load_matrix_x4(b, piece<D>(keys, 8 * j + (lane & 7) + ((lane >> 4) << 3), 2 * i + ((lane >> 3) & 1)));
      mma<T>(s + 4 * j, q[i][0], q[i][1], q[i][2], q[i][3], b[0], b[1]);
      mma<T>(s + 4 * j + 4, q[i][0], q[i][1], q[i][2], q[i][3], b[2], b[3]);
    }
}

/// o += P V for 64 keys.
template <int D, class T>
__device__ __forceinline__ void multiply_values(float (&o)[D / 2], const float (&p)[32], uint32_t values, int lane) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint32_t a[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) a[e] = pack2<T>(p[8 * i + 2 * e], p[8 * i + 2 * e + 1]);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      uint32_t b[4];
      load_matrix_transposed_x4(b, piece<D>(values, 16 * i + (lane & 15), j + (lane >> 4)));
      mma<T>(o + 4 * j, a[0], a[1], a[2], a[3], b[0], b[1]);
      mma<T>(o + 4 * j + 4, a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

}  // namespace prefill::kernels::cuda
