// Checks and times the CUDA attention kernels with nothing but the CUDA runtime: no Torch, no Google Benchmark, so
// that one small binary can be copied to a GPU machine. Random plans are compared with a brute-force kernel that
// reads a dense tile bitmap; then dense and random sparse plans are timed.
//   cuda_probe check [FILTER]   small shapes; exit status 1 on a mismatch, 77 without a GPU
//   cuda_probe bench [FILTER]   one JSON object per line
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/api.h"

using namespace prefill::kernels;

#define CHECK(x)                                                                          \
  do {                                                                                    \
    cudaError_t rc_ = (x);                                                                \
    if (rc_ != cudaSuccess) {                                                             \
      std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(rc_));     \
      std::exit(3);                                                                       \
    }                                                                                     \
  } while (0)

namespace {

__host__ __device__ inline uint32_t hash(uint32_t x) {
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
  return x;
}
/// About normal: sum of four uniforms.
__device__ inline float noise(uint32_t i, uint32_t seed) {
  uint32_t a = hash(i * 2 + seed * 0x9E3779B9u), b = hash(a + 0x85ebca6bu);
  float s = (a & 0xffff) + (a >> 16) + (b & 0xffff) + (b >> 16);
  return (s / 65536.f - 2.f) * 1.7320508f;
}
template <class T>
__global__ void fill_noise(T* x, size_t n, uint32_t seed, float gain) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x)
    x[i] = T(noise(uint32_t(i), seed) * gain);
}
__global__ void fill_bytes(uint8_t* x, size_t n, uint8_t value) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) x[i] = value;
}

struct Dense {  // dense form of a plan, device memory
  const uint8_t* tiles;    // [patterns][rows][key tiles]
  const uint8_t* columns;  // [patterns][groups][seq_len] or null
  int64_t key_tiles, groups;
};

/// One warp per query: plain softmax over the visible keys, two passes, float with double sums.
template <class T, int D>
__global__ void reference(QkvView x, PlanView plan, const RouteView* heads, const WindowView* windows, Dense dense,
                          float* out, float* lse, float* state_max, float* state_sum, float* state_acc) {
  const int n = int(x.seq_len), lane = threadIdx.x & 31;
  const int id = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (id >= n * x.q_heads) return;
  const int h = id / n, i = id % n, kv = h / (x.q_heads / x.kv_heads);
  const T* q = static_cast<const T*>(x.q) + h * x.q_head_stride + i * x.q_row_stride;
  const T* k = static_cast<const T*>(x.k) + kv * x.k_head_stride;
  const T* v = static_cast<const T*>(x.v) + kv * x.v_head_stride;
  const RouteView route = heads[h];
  auto visible = [&](int j) {
    if (j > i) return false;
    if (route.kind == 0) return true;
    if (route.kind == 1) {
      const WindowView w = windows[route.index];
      return j < w.sink || i - j < w.local || i >= n - w.last;
    }
    const int64_t row = i / plan.q_tile;
    if (dense.tiles[(route.index * plan.rows + row) * dense.key_tiles + j / plan.k_tile]) return true;
    return dense.columns && dense.columns[(route.index * dense.groups + row / plan.col_rows) * n + j];
  };
  auto logit = [&](const T* row) {
    float s = 0;
    for (int d = lane; d < D; d += 32) s += float(q[d]) * float(row[d]);
    for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    return s * x.scale;
  };
  const int64_t at = int64_t(h) * n + i;
  // pooled blocks wholly before the row none of whose tiles are selected
  const int64_t blocks = plan.pooled_k && route.kind == 2 ? i / plan.q_tile * plan.q_tile / plan.pooled_block : 0,
                all_blocks = plan.pooled_k ? (n + plan.pooled_block - 1) / plan.pooled_block : 0;
  const T* pk = static_cast<const T*>(plan.pooled_k) + kv * all_blocks * D;
  const T* pv = static_cast<const T*>(plan.pooled_v) + kv * all_blocks * D;
  auto pooled_visible = [&](int b) {
    const int per = plan.pooled_block / plan.k_tile;
    for (int t = b * per; t < (b + 1) * per; ++t)
      if (dense.tiles[(route.index * plan.rows + i / plan.q_tile) * dense.key_tiles + t]) return false;
    return true;
  };
  const float bias = plan.pooled_k ? logf(float(plan.pooled_block)) : 0.f;
  float top = -INFINITY;
  for (int b = 0; b < blocks; ++b)
    if (pooled_visible(b)) top = fmaxf(top, logit(pk + b * D) + bias);
  for (int j = 0; j < n; ++j)
    if (visible(j)) top = fmaxf(top, logit(k + j * x.k_row_stride));
  if (plan.resume_max) top = fmaxf(top, plan.resume_max[at]);
  double sum = 0, acc[D / 32] = {};
  if (plan.resume_max) {
    const double f = plan.resume_max[at] == -INFINITY ? 0. : exp(double(plan.resume_max[at]) - top);
    sum = f * plan.resume_sum[at];
    for (int d = 0; d < D / 32; ++d) acc[d] = f * plan.resume_acc[at * D + lane + 32 * d];
  }
  for (int b = 0; b < blocks; ++b)
    if (pooled_visible(b)) {
      const double w = exp(double(logit(pk + b * D) + bias) - top);
      sum += w;
      for (int d = 0; d < D / 32; ++d) acc[d] += w * double(float(pv[b * D + lane + 32 * d]));
    }
  for (int j = 0; j < n; ++j)
    if (visible(j)) {
      const double w = exp(double(logit(k + j * x.k_row_stride)) - top);
      sum += w;
      for (int d = 0; d < D / 32; ++d) acc[d] += w * double(float(v[j * x.v_row_stride + lane + 32 * d]));
    }
  for (int d = 0; d < D / 32; ++d) {
    out[at * D + lane + 32 * d] = sum > 0 ? float(acc[d] / sum) : 0.f;
    if (state_acc) state_acc[at * D + lane + 32 * d] = float(acc[d]);
  }
  if (lane == 0) {
    lse[at] = top + float(log(sum));
    if (state_max) state_max[at] = top, state_sum[at] = float(sum);
  }
}

template <class T>
struct Device {
  T* p = nullptr;
  size_t n = 0;
  Device() = default;
  explicit Device(size_t count) : n(count) { CHECK(cudaMalloc(&p, std::max<size_t>(count, 1) * sizeof(T))); }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    CHECK(cudaMemcpy(p, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  Device(Device&& o) : p(o.p), n(o.n) { o.p = nullptr; }
  Device& operator=(Device&& o) { std::swap(p, o.p), std::swap(n, o.n); return *this; }
  ~Device() { cudaFree(p); }
  std::vector<T> host() const {
    std::vector<T> x(n);
    CHECK(cudaMemcpy(x.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return x;
  }
};

struct Case {
  std::string name;
  int q_heads, kv_heads, dim, n;
  bool half = false;
  int q_tile = 128, k_tile = 128;
  double density = 0.2;
  char routes = 'p';  // p: one pattern per query head, g: per group, d: dense, m: mixed with windows
  bool columns = false, resume = false, state_out = false, strided = false;
  int col_rows = 1, pooled_block = 0;
  double column_density = 0.15;
};

struct HostPlan {
  std::vector<RouteView> heads;
  std::vector<WindowView> windows;
  std::vector<int32_t> ptr, idx, col_ptr, col_idx;
  std::vector<uint8_t> tiles, columns;
  int64_t rows = 0, key_tiles = 0, groups = 0, capacity = 0, col_capacity = 0;
  int patterns = 0;
  double selected = 0, causal = 0;  // tiles over all query heads
  double column_pairs = 0;          // over all patterns
};

HostPlan make_plan(const Case& c, uint32_t seed, bool bitmap) {
  HostPlan h;
  std::mt19937 rng(seed);
  h.rows = (c.n + c.q_tile - 1) / c.q_tile;
  h.key_tiles = (c.n + c.k_tile - 1) / c.k_tile;
  const int group = c.q_heads / c.kv_heads;
  h.windows = {{64, 200, 0}, {4, 100, 70}, {300, 33, 0}};
  for (int i = 0; i < c.q_heads; ++i) {
    if (c.routes == 'd') h.heads.push_back({0, 0});
    else if (c.routes == 'g') h.heads.push_back({2, i / group});
    else if (c.routes == 'm' && i % 4 == 1) h.heads.push_back({0, 0});
    else if (c.routes == 'm' && i % 4 == 2) h.heads.push_back({1, int(rng() % 3)});
    else h.heads.push_back({2, i});
  }
  h.patterns = c.routes == 'g' ? c.kv_heads : c.q_heads;
  std::vector<std::vector<int>> all;
  for (int p = 0; p < h.patterns; ++p)
    for (int64_t r = 0; r < h.rows; ++r) {
      const int first = int(r * c.q_tile), last = int(std::min<int64_t>(c.n, (r + 1) * c.q_tile)) - 1;
      const int diag0 = first / c.k_tile, diag1 = last / c.k_tile;
      std::vector<int> row;
      const int want = std::max(0, int(std::lround(c.density * (diag1 + 1))) - (diag1 - diag0 + 1));
      if (c.density > 0 && diag0 > 0) {
        if (want * 3 < diag0) {
          std::vector<int> picks;
          while (int(picks.size()) < want) {
            picks.push_back(int(rng() % diag0));
            std::sort(picks.begin(), picks.end());
            picks.erase(std::unique(picks.begin(), picks.end()), picks.end());
          }
          row = picks;
        } else {
          for (int t = 0; t < diag0; ++t)
            if (rng() % 10000 < 10000. * want / diag0) row.push_back(t);
        }
      }
      if (!(c.resume && c.density == 0))
        for (int t = diag0; t <= diag1; ++t) row.push_back(t);
      all.push_back(row);
      h.capacity = std::max<int64_t>(h.capacity, 0);
    }
  std::vector<int64_t> total(h.patterns, 0);
  for (int p = 0; p < h.patterns; ++p)
    for (int64_t r = 0; r < h.rows; ++r) total[p] += all[p * h.rows + r].size();
  h.capacity = *std::max_element(total.begin(), total.end()) + 3;
  h.ptr.assign(h.patterns * (h.rows + 1), 0);
  h.idx.assign(h.patterns * h.capacity, -7);
  if (bitmap) h.tiles.assign(h.patterns * h.rows * h.key_tiles, 0);
  for (int p = 0; p < h.patterns; ++p) {
    int at = 0;
    for (int64_t r = 0; r < h.rows; ++r) {
      h.ptr[p * (h.rows + 1) + r] = at;
      for (int t : all[p * h.rows + r]) {
        h.idx[p * h.capacity + at++] = t;
        if (bitmap) h.tiles[(p * h.rows + r) * h.key_tiles + t] = 1;
      }
    }
    h.ptr[p * (h.rows + 1) + h.rows] = at;
  }
  if (c.columns) {
    h.groups = (h.rows + c.col_rows - 1) / c.col_rows;
    std::vector<std::vector<int>> cols;
    if (bitmap) h.columns.assign(h.patterns * h.groups * c.n, 0);
    for (int p = 0; p < h.patterns; ++p)
      for (int64_t g = 0; g < h.groups; ++g) {
        std::vector<int> list;
        for (int j = 0; j < g * c.col_rows * c.q_tile; ++j) {
          bool inside = false;
          for (int64_t r = g * c.col_rows; r < std::min(h.rows, (g + 1) * c.col_rows); ++r)
            inside = inside || std::binary_search(all[p * h.rows + r].begin(), all[p * h.rows + r].end(), j / c.k_tile);
          if (inside || rng() % 1000 >= 1000 * c.column_density) continue;
          list.push_back(j);
          if (bitmap) h.columns[(p * h.groups + g) * c.n + j] = 1;
        }
        h.column_pairs += double(list.size()) * double(std::min<int64_t>(c.n, (g + 1) * c.col_rows * c.q_tile) - g * c.col_rows * c.q_tile);
        cols.push_back(list);
      }
    std::vector<int64_t> sum(h.patterns, 0);
    for (int p = 0; p < h.patterns; ++p)
      for (int64_t g = 0; g < h.groups; ++g) sum[p] += cols[p * h.groups + g].size();
    h.col_capacity = *std::max_element(sum.begin(), sum.end()) + 1;
    h.col_ptr.assign(h.patterns * (h.groups + 1), 0);
    h.col_idx.assign(h.patterns * h.col_capacity, -7);
    for (int p = 0; p < h.patterns; ++p) {
      int at = 0;
      for (int64_t g = 0; g < h.groups; ++g) {
        h.col_ptr[p * (h.groups + 1) + g] = at;
        for (int j : cols[p * h.groups + g]) h.col_idx[p * h.col_capacity + at++] = j;
      }
      h.col_ptr[p * (h.groups + 1) + h.groups] = at;
    }
  }
  for (const auto& route : h.heads)
    for (int64_t r = 0; r < h.rows; ++r) {
      const double causal = (std::min<int64_t>(c.n, (r + 1) * c.q_tile) - 1) / c.k_tile + 1;
      h.causal += causal;
      h.selected += route.kind == 2 ? double(all[route.index * h.rows + r].size()) : causal;
    }
  return h;
}

struct DevicePlan {
  Device<int32_t> ptr, idx, col_ptr, col_idx;
  Device<RouteView> heads;
  Device<WindowView> windows;
  Device<uint8_t> tiles, columns;
  explicit DevicePlan(const HostPlan& h)
      : ptr(h.ptr), idx(h.idx), col_ptr(h.col_ptr), col_idx(h.col_idx), heads(h.heads), windows(h.windows), tiles(h.tiles),
        columns(h.columns) {}
};

PlanView view(const Case& c, const HostPlan& h, const DevicePlan& d) {
  PlanView v{};
  v.heads = h.heads.data(), v.windows = h.windows.data(), v.window_count = int(h.windows.size());
  v.q_tile = c.q_tile, v.k_tile = v.k_step = c.k_tile, v.patterns = h.patterns, v.rows = h.rows;
  v.tile_ptr = d.ptr.p, v.tile_idx = d.idx.p, v.tile_ptr_stride = h.rows + 1, v.tile_idx_stride = h.capacity;
  v.col_rows = c.col_rows;
  if (c.columns)
    v.col_ptr = d.col_ptr.p, v.col_idx = d.col_idx.p, v.col_ptr_stride = h.groups + 1, v.col_idx_stride = h.col_capacity;
  return v;
}

template <class T>
struct Tensors {
  Device<T> q, k, v, out;
  QkvView view{};
  static constexpr size_t kGuard = 512;
  Tensors(const Case& c, uint32_t seed) {
    const size_t pad = c.strided ? 64 : 0, row_q = c.strided ? c.q_heads * c.dim + pad : c.dim,
                 row_k = c.strided ? c.kv_heads * c.dim + pad : c.dim;
    const size_t nq = c.strided ? c.n * row_q : size_t(c.q_heads) * c.n * c.dim, nk = c.strided ? c.n * row_k : size_t(c.kv_heads) * c.n * c.dim;
    q = Device<T>(nq), k = Device<T>(nk), v = Device<T>(nk), out = Device<T>(size_t(c.q_heads) * c.n * c.dim + 2 * kGuard);
    fill_noise<<<512, 256>>>(q.p, nq, seed, 1.3f);
    fill_noise<<<512, 256>>>(k.p, nk, seed + 1, 1.3f);
    fill_noise<<<512, 256>>>(v.p, nk, seed + 2, 1.f);
    view.q = q.p, view.k = k.p, view.v = v.p;
    view.dtype = std::is_same_v<T, __half> ? Dtype::f16 : Dtype::bf16;
    view.q_heads = c.q_heads, view.kv_heads = c.kv_heads, view.head_dim = c.dim, view.seq_len = c.n;
    view.q_head_stride = c.strided ? c.dim : int64_t(c.n) * c.dim, view.q_row_stride = row_q;
    view.k_head_stride = view.v_head_stride = c.strided ? c.dim : int64_t(c.n) * c.dim;
    view.k_row_stride = view.v_row_stride = row_k;
    view.scale = 1.f / std::sqrt(float(c.dim));
  }
};

double nmse(const std::vector<float>& got, const std::vector<float>& want) {
  double err = 0, ref = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = double(got[i]) - want[i];
    if (!(std::fabs(d) < 1e30)) {
      if (std::isinf(want[i]) && got[i] == want[i]) continue;
      return INFINITY;
    }
    err += d * d, ref += double(want[i]) * want[i];
  }
  return err / std::max(ref, 1e-30);
}
template <class T>
std::vector<float> floats(const Device<T>& d, size_t from, size_t count) {
  auto x = d.host();
  std::vector<float> y(count);
  for (size_t i = 0; i < count; ++i) y[i] = float(x[from + i]);
  return y;
}

template <class T>
bool check(const Case& c, uint32_t seed) {
  const HostPlan h = make_plan(c, seed, true);
  const DevicePlan d(h);
  Tensors<T> x(c, seed);
  PlanView plan = view(c, h, d);
  const size_t rows = size_t(c.q_heads) * c.n, count = rows * c.dim;
  Device<float> want(count), want_lse(rows), lse(rows + 64), rm(rows), rs(rows), ra(count), sm(rows), ss(rows), sa(count), wm(rows),
      ws(rows), wa(count);
  if (c.resume) {
    std::mt19937 rng(seed);
    std::vector<float> m(rows), s(rows);
    for (auto& e : m) e = float(int(rng() % 2000) - 500) / 500.f;
    for (auto& e : s) e = 1.f + float(rng() % 1000) / 100.f;
    rm = Device<float>(m), rs = Device<float>(s);
    fill_noise<<<512, 256>>>(ra.p, count, seed + 9, 2.f);
    plan.resume_max = rm.p, plan.resume_sum = rs.p, plan.resume_acc = ra.p;
  }
  Device<T> pooled_k, pooled_v;
  if (c.pooled_block) {
    const size_t size = size_t(c.kv_heads) * ((c.n + c.pooled_block - 1) / c.pooled_block) * c.dim;
    pooled_k = Device<T>(size), pooled_v = Device<T>(size);
    fill_noise<<<512, 256>>>(pooled_k.p, size, seed + 3, 0.7f);
    fill_noise<<<512, 256>>>(pooled_v.p, size, seed + 4, 1.f);
    plan.pooled_k = pooled_k.p, plan.pooled_v = pooled_v.p, plan.pooled_block = c.pooled_block;
  }
  const Dense dense{d.tiles.p, c.columns ? d.columns.p : nullptr, h.key_tiles, h.groups};
  const int blocks = int((rows + 7) / 8);
  if (c.dim == 128)
    reference<T, 128><<<blocks, 256>>>(x.view, plan, d.heads.p, d.windows.p, dense, want.p, want_lse.p, wm.p, ws.p, wa.p);
  else
    reference<T, 64><<<blocks, 256>>>(x.view, plan, d.heads.p, d.windows.p, dense, want.p, want_lse.p, wm.p, ws.p, wa.p);
  CHECK(cudaDeviceSynchronize());
  OutView o{};
  o.out = x.out.p + Tensors<T>::kGuard, o.out_head_stride = int64_t(c.n) * c.dim, o.out_row_stride = c.dim;
  o.lse = lse.p;
  if (c.state_out) o.state_max = sm.p, o.state_sum = ss.p, o.state_acc = sa.p;
  fill_bytes<<<512, 256>>>(reinterpret_cast<uint8_t*>(x.out.p), x.out.n * 2, 0xFF);
  fill_bytes<<<512, 256>>>(reinterpret_cast<uint8_t*>(lse.p), lse.n * 4, 0xFF);
  Device<uint8_t> work(attend_cuda_workspace(x.view, plan, o) + 16);
  const Result r = attend_cuda(x.view, plan, o, work.p, nullptr);
  if (r.status != Status::ok) {
    std::printf("FAIL %-34s status %d: %s\n", c.name.c_str(), int(r.status), r.why);
    return false;
  }
  CHECK(cudaDeviceSynchronize());
  auto first = x.out.host();
  const auto got = floats(x.out, Tensors<T>::kGuard, count);
  const double e_out = nmse(got, want.host());
  auto lse_host = lse.host();
  bool guards = true;
  for (size_t i = rows; i < lse.n; ++i) guards = guards && std::isnan(lse_host[i]);
  for (size_t i = 0; i < Tensors<T>::kGuard; ++i)
    guards = guards && std::isnan(float(first[i])) && std::isnan(float(first[first.size() - 1 - i]));
  lse_host.resize(rows);
  const double e_lse = nmse(lse_host, want_lse.host());
  double e_state = 0;
  if (c.state_out) {  // (m, l, acc) are compared as acc * exp(m): the reference maximum may differ by rounding
    auto m = sm.host(), s = ss.host(), a = sa.host(), m2 = wm.host(), s2 = ws.host(), a2 = wa.host();
    for (size_t i = 0; i < rows; ++i) {
      const float f = m[i] == m2[i] ? 1.f : std::exp(m[i] - m2[i]);
      s[i] *= f;
      for (int e = 0; e < c.dim; ++e) a[i * c.dim + e] *= f;
    }
    e_state = std::max(nmse(s, s2), nmse(a, a2));
  }
  fill_bytes<<<512, 256>>>(reinterpret_cast<uint8_t*>(x.out.p), x.out.n * 2, 0xFF);
  attend_cuda(x.view, plan, o, work.p, nullptr);
  CHECK(cudaDeviceSynchronize());
  auto second = x.out.host();
  const bool same = !std::memcmp(first.data(), second.data(), first.size() * sizeof(T));
  const double bound = std::is_same_v<T, __half> ? 4e-6 : 3e-5;
  const bool ok = e_out < bound && e_lse < 1e-9 && e_state < bound && guards && same;
  std::printf("%s %-34s nmse out %.2e lse %.2e state %.2e guards %d same bits %d\n", ok ? "ok  " : "FAIL", c.name.c_str(), e_out,
              e_lse, e_state, guards, same);
  if (!ok) {  // where it goes wrong: the first bad rows
    const auto right = want.host();
    int shown = 0;
    for (size_t row = 0; row < rows && shown < 6; ++row) {
      int bad = 0, at = 0;
      for (int e = 0; e < c.dim; ++e)
        if (!(std::fabs(got[row * c.dim + e] - right[row * c.dim + e]) < 0.03f)) at = bad++ ? at : e;
      if (!bad) continue;
      ++shown;
      std::printf("  head %zu query %zu: %d bad, first at %d: %f instead of %f\n", row / c.n, row % c.n, bad, at,
                  got[row * c.dim + at], right[row * c.dim + at]);
    }
  }
  std::fflush(stdout);
  return ok;
}

bool check_all(const std::string& filter) {
  std::vector<Case> cases = {
      {"one tile", 1, 1, 128, 128, false, 128, 128, 1.0},
      {"dense 512", 2, 1, 128, 512, false, 128, 128, 1.0, 'd'},
      {"dense odd 1000", 4, 2, 128, 1000, false, 128, 128, 1.0, 'd'},
      {"length 1", 3, 1, 128, 1, false, 128, 128, 1.0, 'p'},
      {"length 77", 3, 1, 64, 77, false, 64, 64, 0.5, 'p'},
      {"sparse 128x128", 8, 2, 128, 2049, false, 128, 128, 0.3},
      {"diagonal only", 4, 4, 128, 1500, false, 128, 128, 0.0},
      {"sparse 128x64", 8, 1, 128, 1999, false, 128, 64, 0.3},
      {"sparse 64x64 own rows", 6, 2, 128, 1801, false, 64, 64, 0.3},
      {"sparse 64x64 packed 4", 8, 2, 128, 1801, false, 64, 64, 0.3, 'g'},
      {"sparse 64x64 packed 3", 9, 3, 64, 1801, false, 64, 64, 0.3, 'g'},
      {"sparse 32x64 packed 4", 8, 2, 128, 1033, false, 32, 64, 0.3, 'g'},
      {"sparse 32x32 own rows", 3, 3, 64, 700, false, 32, 32, 0.3},
      {"sparse 16x16 packed 8", 16, 2, 128, 650, false, 16, 16, 0.2, 'g'},
      {"sparse 64x32", 4, 2, 64, 1333, true, 64, 32, 0.2},
      {"sparse 256x256", 4, 2, 128, 2600, false, 256, 256, 0.3},
      {"sparse 192x192", 4, 2, 64, 2600, true, 192, 192, 0.3},
      {"mixed routes", 8, 2, 128, 1777, false, 128, 128, 0.3, 'm'},
      {"mixed routes 64x64 f16", 9, 3, 64, 1777, true, 64, 64, 0.3, 'm'},
      {"strided f16", 8, 2, 128, 1111, true, 128, 128, 0.4, 'm', false, false, false, true},
      {"resume", 4, 2, 128, 1500, false, 128, 128, 0.3, 'p', false, true, true},
      {"resume without diagonal", 4, 2, 64, 1500, false, 128, 64, 0.0, 'p', false, true, true},
      {"columns 128x128, groups of 4 rows", 4, 2, 128, 2300, false, 128, 128, 0.1, 'p', true, false, false, false, 4},
      {"columns 64x64 own rows", 4, 2, 128, 1500, false, 64, 64, 0.1, 'p', true, false, true},
      {"columns 64x64 packed f16", 6, 2, 64, 1400, true, 64, 64, 0.1, 'g', true, false, false, true, 2},
      {"columns without tiles, resumed", 4, 2, 64, 1400, false, 128, 128, 0.0, 'p', true, true, false, false, 1},
      {"pooled 128", 4, 2, 128, 2500, false, 128, 128, 0.2, 'p', false, false, false, false, 1, 128},
      {"pooled 64 of many blocks", 2, 1, 64, 9000, false, 64, 64, 0.1, 'p', false, false, true, false, 1, 64},
      {"pooled 128 packed 32x64", 8, 2, 128, 1800, false, 32, 64, 0.1, 'g', true, false, false, true, 4, 128},
      {"state out f16", 4, 1, 64, 900, true, 64, 64, 0.4, 'p', false, false, true},
  };
  bool ok = true;
  uint32_t seed = 11;
  for (const Case& c : cases)
    if (c.name.find(filter) != std::string::npos)
      ok = (c.half ? check<__half>(c, seed += 7) : check<__nv_bfloat16>(c, seed += 7)) && ok;
  return ok;
}

void bench(const Case& c, int repeats) {
  const HostPlan h = make_plan(c, 5, false);
  const DevicePlan d(h);
  Tensors<__nv_bfloat16> x(c, 3);
  const PlanView plan = view(c, h, d);
  OutView o{};
  o.out = x.out.p + 512, o.out_head_stride = int64_t(c.n) * c.dim, o.out_row_stride = c.dim;
  Device<uint8_t> work(attend_cuda_workspace(x.view, plan, o) + 16);
  std::vector<float> ms;
  cudaEvent_t a, b;
  CHECK(cudaEventCreate(&a));
  CHECK(cudaEventCreate(&b));
  for (int i = 0; i < repeats + 2; ++i) {
    CHECK(cudaEventRecord(a));
    const Result r = attend_cuda(x.view, plan, o, work.p, nullptr);
    if (r.status != Status::ok) return void(std::printf("%s: %s\n", c.name.c_str(), r.why));
    CHECK(cudaEventRecord(b));
    CHECK(cudaEventSynchronize(b));
    float t;
    CHECK(cudaEventElapsedTime(&t, a, b));
    if (i >= 2) ms.push_back(t);
  }
  std::sort(ms.begin(), ms.end());
  const double flops = 4. * c.dim * (c.q_heads * (double(c.n) * (c.n + 1) / 2) * (h.selected / h.causal) +
                                     h.column_pairs * c.q_heads / h.patterns);
  const float mid = ms[ms.size() / 2];
  std::printf("{\"name\": \"%s\", \"n\": %d, \"dim\": %d, \"q_tile\": %d, \"k_tile\": %d, \"routes\": \"%c\", \"density\": %.4f, \"ms\": %.4f, "
              "\"ms_min\": %.4f, \"ms_max\": %.4f, \"tflops\": %.1f}\n",
              c.name.c_str(), c.n, c.dim, c.q_tile, c.k_tile, c.routes, h.selected / h.causal, mid, ms.front(), ms.back(), flops / mid * 1e-9);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "check";
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device: skipped\n");
    return 77;
  }
  const std::string filter = argc > 2 ? argv[2] : "";
  if (verb == "check") return check_all(filter) ? 0 : 1;
  std::vector<Case> cases;
  for (int n : {8192, 32768, 131072}) {
    cases.push_back({"dense", 32, 8, 128, n, false, 128, 128, 1.0, 'd'});
    for (double density : {0.5, 0.2, 0.1, 0.05, 0.024}) {
      cases.push_back({"group", 32, 8, 128, n, false, 128, 128, density, 'g'});
      if (density == 0.1 || density == 0.05) {
        cases.push_back({"head", 32, 8, 128, n, false, 128, 128, density, 'p'});
        cases.push_back({"head", 32, 8, 128, n, false, 128, 64, density, 'p'});
      }
      if (density == 0.1) {
        cases.push_back({"group", 32, 8, 128, n, false, 64, 64, density, 'g'});
        cases.push_back({"head", 32, 8, 128, n, false, 64, 64, density, 'p'});
      }
    }
    if (n == 32768) {  // single keys, a tenth of all, lists shared by 16 rows of 128 and by one row
      for (int group : {16, 1}) {
        Case columns{"columns", 32, 8, 128, n, false, 128, 128, 0.0, 'g', true};
        columns.col_rows = group, columns.column_density = 0.1;
        cases.push_back(columns);
      }
    }
    cases.push_back({"dense", 32, 8, 64, n, false, 128, 128, 1.0, 'd'});
    cases.push_back({"group", 32, 8, 64, n, false, 128, 128, 0.1, 'g'});
  }
  for (const Case& c : cases)
    if (filter.empty() || c.name.find(filter) != std::string::npos) bench(c, c.n > 100000 ? 5 : 11);
}
