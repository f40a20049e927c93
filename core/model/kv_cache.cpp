#include "core/model/kv_cache.h"

#include <ATen/ATen.h>

namespace prefill {
namespace {
constexpr int64_t kRoom = 256;  // tokens to decode before the cache must grow
}

KvCache::KvCache(int64_t layers, int64_t heads, int64_t head_dim, at::TensorOptions options)
    : heads_(heads), head_dim_(head_dim), options_(options), k_(size_t(layers)), v_(size_t(layers)) {}

void KvCache::allocate(int64_t capacity) {
  for (auto* side : {&k_, &v_})
    for (auto& t : *side) {
      at::Tensor fresh = at::empty({heads_, capacity, head_dim_}, options_);
      if (length_ > 0) fresh.slice(1, 0, length_).copy_(t.slice(1, 0, length_));
      t = fresh;
    }
  capacity_ = capacity;
}

void KvCache::start(int64_t n) {
  length_ = 0;
  if (capacity_ < n + kRoom) {
    for (auto* side : {&k_, &v_})
      for (auto& t : *side) t.reset();  // before the new memory, or both would be held at once
    allocate(n + kRoom);
  }
}

void KvCache::grow() {
  if (length_ + 1 > capacity_) allocate(capacity_ + capacity_ / 2 + kRoom);
}

at::Tensor KvCache::keys(int64_t layer, int64_t n) const { return k_[size_t(layer)].slice(1, 0, n); }
at::Tensor KvCache::values(int64_t layer, int64_t n) const { return v_[size_t(layer)].slice(1, 0, n); }

std::pair<at::Tensor, at::Tensor> KvCache::rows(int64_t layer, int64_t begin, int64_t end) {
  return {k_[size_t(layer)].slice(1, begin, end), v_[size_t(layer)].slice(1, begin, end)};
}

}  // namespace prefill
