// Q and K with structure, bit for bit those of scripts/fixtures/synthetic_qkv.py.
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/backend.h"

namespace prefill::testing {

inline uint64_t mixed(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

inline float noise(uint64_t stream, int64_t index) {
  const uint64_t z = mixed(uint64_t(index) + (stream << 40));
  const int64_t total =
      int64_t(z & 0xFFFF) + int64_t((z >> 16) & 0xFFFF) + int64_t((z >> 32) & 0xFFFF) + int64_t(z >> 48);
  return float(total - 131070) / 32768.0f;
}

inline int64_t topic(uint64_t stream, int64_t head, int64_t token, int64_t n, int64_t run) {
  const int64_t runs = (n + run - 1) / run;
  return int64_t(mixed(uint64_t(head * runs + token / run) + (stream << 40)) % 12);
}

/// q, k, v of a layer in `dtype`; v is noise (the Python side needs none).
inline Qkv synthetic_qkv(uint64_t seed, int64_t q_heads, int64_t kv_heads, int64_t n, int64_t dim,
                         at::ScalarType dtype = at::kBFloat16) {
  const uint64_t s = seed * 16;
  auto fill = [&](int64_t heads, auto value) {
    at::Tensor x = at::empty({heads, n, dim}, at::kFloat);
    float* p = x.data_ptr<float>();
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t t = 0; t < n; ++t)
        for (int64_t d = 0; d < dim; ++d) *p++ = value(h, t, d);
    return x.to(dtype);
  };
  auto at_index = [&](int64_t h, int64_t t, int64_t d) { return (h * n + t) * dim + d; };
  auto here = [&](int64_t t, int64_t d) { return 0.5f * noise(s + 4, t / 256 * dim + d); };
  Qkv x;
  x.q = fill(q_heads, [&](int64_t h, int64_t t, int64_t d) {
    return noise(s + 1, at_index(h, t, d)) + 0.75f * noise(s + 3, topic(s + 5, h, t, n, 128) * dim + d) +
           here(t, d) + 0.5f * noise(s + 3, d);
  });
  x.k = fill(kv_heads, [&](int64_t h, int64_t t, int64_t d) {
    return noise(s + 2, at_index(h, t, d)) + 0.75f * noise(s + 3, topic(s + 6, h, t, n, 64) * dim + d) +
           here(t, d) + (t < 16 ? noise(s + 3, d) : 0.0f);
  });
  x.v = fill(kv_heads, [&](int64_t h, int64_t t, int64_t d) { return noise(s + 7, at_index(h, t, d)); });
  x.scale = 1 / std::sqrt(double(dim));
  return x;
}

}  // namespace prefill::testing
