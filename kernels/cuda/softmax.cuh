// Running softmax of two rows per thread; the four threads of a quad share a row (the accumulator layout of
// mma m16n8 and wgmma m64nN: element 4j + e is row e/2, column 8j + 2*(lane%4) + e%2).
#pragma once
#include <cstdint>

namespace prefill::kernels::cuda {

struct OnlineSoftmax {
  float max[2], sum[2];  // max of raw scores; sum is this thread's share until reduce()

  __device__ __forceinline__ void reset() {
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0.f;
  }
  /// s: raw scores -> exp(scale * (s - max)); `rescale` is what earlier results must be multiplied by.
  template <int kCount>
  __device__ __forceinline__ void update(float (&s)[kCount], float scale_log2, float (&rescale)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = s[2 * r];
#pragma unroll
      for (int j = 0; j < kCount / 4; ++j) top = fmaxf(top, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      top = fmaxf(top, max[r]);
      float base = top == -INFINITY ? 0.f : top * scale_log2;  // nothing visible yet: all terms are 0
      rescale[r] = exp2_fast(max[r] * scale_log2 - base);
      max[r] = top;
      float total = 0.f;
#pragma unroll
      for (int j = 0; j < kCount / 4; ++j) {
        s[4 * j + 2 * r] = exp2_fast(s[4 * j + 2 * r] * scale_log2 - base);
        s[4 * j + 2 * r + 1] = exp2_fast(s[4 * j + 2 * r + 1] * scale_log2 - base);
        total += s[4 * j + 2 * r] + s[4 * j + 2 * r + 1];
      }
      sum[r] = sum[r] * rescale[r] + total;
    }
  }
  __device__ __forceinline__ void reduce() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    }
  }
};

}  // namespace prefill::kernels::cuda
