#include "tasks/planted.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/generated/rng.h"

namespace prefill {
namespace {

constexpr int frequencies =
    16;  // 32 dimensions tell positions apart; the others carry codes of columns and blocks

double normal(Rng& rng) {  // Box-Muller
  const double u = 1 - rng.uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * rng.uniform());
}

struct Builder {
  const PlantedSpec& spec;
  Rng rng;
  float amplitude;  // of each side: a planted pair's logit is its square
  std::vector<double> omega;
  std::vector<std::vector<double>> codes;  // unit vectors handed out so far
  Planted out;

  explicit Builder(const PlantedSpec& s) : spec(s), rng(s.seed, "planted", 0) {
    // A planted key must outweigh all others together, whose number is `tokens`.
    amplitude = float(std::sqrt(std::log(double(s.tokens)) + 10));
    for (int f = 0; f < frequencies; ++f) omega.push_back(0.2 + 2.7 * rng.uniform());
  }

  // A random direction in the code dimensions, of length `amplitude`, at right angles to the earlier ones as
  // long as there are dimensions left, so that what is planted for one head does not attract another.
  std::vector<float> code() {
    std::vector<double> c(size_t(spec.head_dim - 2 * frequencies));
    for (double& x : c) x = normal(rng);
    if (codes.size() < c.size())
      for (const auto& other : codes) {
        double dot = 0;
        for (size_t i = 0; i < c.size(); ++i) dot += c[i] * other[i];
        for (size_t i = 0; i < c.size(); ++i) c[i] -= dot * other[i];
      }
    double norm = 0;
    for (double x : c) norm += x * x;
    for (double& x : c) x /= std::sqrt(norm);
    codes.push_back(c);
    std::vector<float> scaled(c.begin(), c.end());
    for (float& x : scaled) x *= amplitude;
    return scaled;
  }
  void add_code(float* vector, const std::vector<float>& c) const {
    for (size_t i = 0; i < c.size(); ++i) vector[2 * frequencies + int(i)] += c[i];
  }
  void add_position(float* vector, int64_t position) const {
    const float a = amplitude / std::sqrt(float(frequencies));
    for (int f = 0; f < frequencies; ++f) {
      vector[2 * f] += a * float(std::cos(omega[size_t(f)] * double(position)));
      vector[2 * f + 1] += a * float(std::sin(omega[size_t(f)] * double(position)));
    }
  }
  // `count` different numbers of lo..hi (fewer when there are not so many), ascending.
  std::vector<int64_t> distinct(int count, int64_t lo, int64_t hi) {
    std::set<int64_t> found;
    while (int64_t(found.size()) < std::min<int64_t>(count, hi - lo + 1)) found.insert(rng.between(lo, hi));
    return {found.begin(), found.end()};
  }

  void build() {
    const int64_t n = spec.tokens, d = spec.head_dim, rows = (n + spec.tile - 1) / spec.tile;
    auto noise = [&](int heads, double sigma) {
      at::Tensor t = at::empty({heads, n, d}, at::kFloat);
      float* p = t.data_ptr<float>();
      for (int64_t i = 0; i < t.numel(); ++i) p[i] = float(sigma * normal(rng));
      return t;
    };
    const double sigma = std::sqrt(spec.noise / std::sqrt(double(d)));
    at::Tensor q = noise(spec.q_heads, sigma), k = noise(spec.kv_heads, sigma);
    out.qkv.v = noise(spec.kv_heads, 1);
    out.oracle = at::zeros({spec.q_heads, rows, rows}, at::kBool);
    auto query = [&](int h, int64_t i) { return q.data_ptr<float>() + (h * n + i) * d; };
    auto key = [&](int h, int64_t j) {
      return k.data_ptr<float>() + (h / (spec.q_heads / spec.kv_heads) * n + j) * d;
    };
    auto oracle = [&](int h, int64_t i, int64_t j) -> bool& {
      return out.oracle.data_ptr<bool>()[(h * rows + i / spec.tile) * rows + j / spec.tile];
    };

    const std::vector<float> sink = code();
    for (int g = 0; g < spec.kv_heads; ++g) {
      const int first = g * (spec.q_heads / spec.kv_heads);
      for (int64_t j = 0; j < spec.sinks; ++j) add_code(key(first, j), sink);
      for (int64_t j = 0; j < n; ++j) add_position(key(first, j), j);
    }
    for (int h = 0; h < spec.q_heads; ++h) {
      PlantedHead head{PlantedHead::Kind(h % 3), {}, {}, {}};
      for (int64_t i = 0; i < n; ++i) {
        add_code(query(h, i), sink);
        oracle(h, i, i) = true;
        for (int64_t j = 0; j < std::min<int64_t>(spec.sinks, i + 1); ++j) oracle(h, i, j) = true;
      }
      if (head.kind == PlantedHead::columns) {
        head.keys = distinct(spec.columns, spec.sinks, n - 1);
        const std::vector<float> c = code();
        for (int64_t j : head.keys) {
          add_code(key(h, j), c);
          for (int64_t i = j; i < n; ++i) oracle(h, i, j) = true;
        }
        for (int64_t i = 0; i < n; ++i) add_code(query(h, i), c);
      } else if (head.kind == PlantedHead::diagonals) {
        head.offsets = distinct(spec.diagonals, 1, n / 2);
        for (int64_t offset : head.offsets)
          for (int64_t i = offset; i < n; ++i) {
            add_position(query(h, i), i - offset);
            oracle(h, i, i - offset) = true;
          }
      } else {
        std::set<std::pair<int64_t, int64_t>> tiles;
        while (int64_t(tiles.size()) < std::min<int64_t>(spec.blocks, rows - 1)) {
          const int64_t row = rng.between(1, rows - 1);
          tiles.emplace(row, rng.between(0, row - 1));
        }
        head.tiles.assign(tiles.begin(), tiles.end());
        for (auto [row, column] : head.tiles) {
          const std::vector<float> c = code();
          for (int64_t i = row * spec.tile; i < std::min(n, (row + 1) * spec.tile); ++i)
            add_code(query(h, i), c);
          for (int64_t j = column * spec.tile; j < (column + 1) * spec.tile; ++j) add_code(key(h, j), c);
          oracle(h, row * spec.tile, column * spec.tile) = true;
        }
      }
      out.heads.push_back(std::move(head));
    }
    out.qkv.q = q.mul_(std::sqrt(double(d)));  // undone by the scale
    out.qkv.k = k;
    out.qkv.scale = 1 / std::sqrt(double(d));
  }
};

}  // namespace

Planted planted(const PlantedSpec& s) {
  if (s.head_dim < 48) throw InputError(str("planted: head_dim must be at least 48, not ", s.head_dim));
  if (s.kv_heads < 1 || s.q_heads < 1 || s.q_heads % s.kv_heads)
    throw InputError(
        str("planted: q_heads (", s.q_heads, ") must be a multiple of kv_heads (", s.kv_heads, ")"));
  if (s.tile < 1 || s.tokens < 4 * int64_t(s.tile))
    throw InputError(str("planted: at least four tiles of ", s.tile, " tokens, not ", s.tokens, " tokens"));
  Builder b(s);
  b.build();
  return std::move(b.out);
}

}  // namespace prefill
