// Random numbers that are the same on every platform and compiler (the standard's distributions are not).
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace prefill {

/// SplitMix64 (Steele, Lea, Flood 2014). One generator per (seed, task, sample), so samples do not depend on
/// each other or on their number.
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  Rng(uint64_t seed, std::string_view stream, uint64_t index) : state_(seed) {
    uint64_t h = 0xcbf29ce484222325ull;  // FNV-1a of the name keeps streams apart
    for (char c : stream) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
    state_ = next() ^ h;
    // Mixed: a start that lies k increments behind another's gives the same numbers, k places on.
    state_ = next() + mix(index);
    next();
  }
  uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15ull); }
  /// Uniform in 0..n-1, without bias; n > 0.
  uint64_t below(uint64_t n) {
    const uint64_t limit = -n % n;  // 2^64 mod n: the values that would make small results likelier
    uint64_t x;
    do x = next();
    while (x < limit);
    return x % n;
  }
  /// Uniform in lo..hi, both included.
  int64_t between(int64_t lo, int64_t hi) { return lo + int64_t(below(uint64_t(hi - lo + 1))); }
  /// Uniform in [0, 1), 53 bits.
  double uniform() { return double(next() >> 11) * 0x1.0p-53; }
  template <class T>
  void shuffle(std::vector<T>& v) {
    for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[below(i)]);
  }
  template <class T, size_t N>
  const T& pick(const T (&list)[N]) {
    return list[below(N)];
  }
  template <class T>
  const T& pick(const std::vector<T>& list) {
    return list[below(list.size())];
  }

 private:
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace prefill
