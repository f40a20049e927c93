// kernels/api.h's CUDA attention: checks, tensor maps, work list, launch.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/api.h"
#include "kernels/cuda/attend_mma.h"
#include "kernels/cuda/attend_sm90.h"
#include "kernels/cuda/copy_columns.h"
#include "kernels/cuda/tensor_maps.h"
#include "kernels/cuda/work_list.h"

namespace prefill::kernels {
namespace {

Result from_cuda(cudaError_t rc) {
  if (rc == cudaSuccess) return {};
  return {rc == cudaErrorMemoryAllocation ? Status::out_of_memory : Status::device_error, cudaGetErrorString(rc)};
}

struct Chip {
  cudaError_t error = cudaSuccess;
  int multiprocessors = 0, capability = 0;  ///< 80, 90, ...
};
Chip current_chip() {
  Chip chip;
  int device = 0, major = 0, minor = 0;
  chip.error = cudaGetDevice(&device);
  for (auto [value, attribute] : {std::pair{&chip.multiprocessors, cudaDevAttrMultiProcessorCount},
                                  {&major, cudaDevAttrComputeCapabilityMajor},
                                  {&minor, cudaDevAttrComputeCapabilityMinor}})
    if (chip.error == cudaSuccess) chip.error = cudaDeviceGetAttribute(value, attribute, device);
  chip.capability = 10 * major + minor;
  return chip;
}

/// The wgmma kernels are built for sm_90a alone, which no other chip runs. PREFILL_CUDA_KERNELS=sm80 picks the others
/// there, too, so that they can be tested and compared on a Hopper.
bool use_sm90(const Chip& chip) {
  const char* wanted = std::getenv("PREFILL_CUDA_KERNELS");
  return chip.capability == 90 && !(wanted && !std::strcmp(wanted, "sm80"));
}

Result check(const QkvView& qkv, const PlanView& plan, const OutView& out) {
  if (qkv.dtype != Dtype::bf16 && qkv.dtype != Dtype::f16) return {Status::unsupported, "dtype must be bfloat16 or float16"};
  if (qkv.head_dim != 64 && qkv.head_dim != 128) return {Status::unsupported, "head_dim must be 64 or 128"};
  if (qkv.kv_heads < 1 || qkv.q_heads % qkv.kv_heads) return {Status::bad_argument, "q_heads must be a multiple of kv_heads"};
  if (qkv.seq_len < 1 || qkv.seq_len > (1 << 28)) return {Status::unsupported, "more than 2^28 tokens"};
  if (!(qkv.scale > 0)) return {Status::unsupported, "scale must be positive"};
  for (const void* base : {qkv.q, qkv.k, qkv.v})
    if (reinterpret_cast<uintptr_t>(base) % 16) return {Status::unsupported, "q, k and v must start at multiples of 16 bytes"};
  for (int64_t stride : {qkv.q_row_stride, qkv.q_head_stride, qkv.k_row_stride, qkv.k_head_stride, qkv.v_row_stride,
                         qkv.v_head_stride})
    if (stride % 8) return {Status::unsupported, "strides of q, k and v must be multiples of 16 bytes"};
  if (plan.pooled_k && plan.pooled_block % plan.k_tile)
    return {Status::bad_argument, "the complement's block must be a multiple of k_tile"};
  if (out.tile_mean && !out.lse) return {Status::bad_argument, "tile means need lse"};
  const bool means = out.tile_mean || out.want_tile_mean;
  if (plan.tile_ptr && plan.k_step != plan.k_tile && (plan.pooled_k || means))
    return {Status::unsupported, "tile means and a pooled complement need tiles of an aligned grid"};
  return {};
}

constexpr int64_t kCounterBytes = 256;  ///< of the workspace, before packed columns

/// How column lists that several items of 128 queries share are copied side by side before they are computed, so that
/// they arrive as fast as tiles: a launch for each run of groups of rows, as long as memory allows.
struct PackedColumns {
  int64_t span = 0;      ///< queries that share a list; 0: the columns are not packed
  int64_t capacity = 0;  ///< rows of a unit
  int units = 0;
  std::vector<int> first_group;  ///< of each launch, and their end
  int64_t bytes(const QkvView& a) const { return span ? 2 * units * capacity * a.head_dim * 2 : 0; }
};

/// 2.25 GiB, what lists of all keys of 131,072 tokens take for 32 heads, or PREFILL_CUDA_COLUMN_MIB (0: columns are
/// gathered).
int64_t packed_bytes_allowed() {
  const char* mib = std::getenv("PREFILL_CUDA_COLUMN_MIB");
  return mib ? std::atoll(mib) << 20 : 9ll << 28;
}

/// Queries that share a column list, where they are enough for a copy to pay; else 0.
int64_t shared_span(const PlanView& plan) {
  constexpr int64_t kLeastReuse = 4;  ///< items that share a list: a copy costs about what one item's gathering does
  const int64_t span = plan.col_ptr ? int64_t(plan.col_rows) * plan.q_tile : 0;
  return span % 128 == 0 && span / 128 >= kLeastReuse ? span : 0;
}

PackedColumns pack_columns(const QkvView& a, const PlanView& plan, const cuda::AttendParams& p) {
  PackedColumns c;
  const int64_t span = shared_span(plan), n = a.seq_len;
  if (!span) return c;
  const cuda::WorkList& work = p.work;
  c.units = 1 + work.slots[work.section_slot[work.sections] - 1].unit;
  const int64_t most_rows = packed_bytes_allowed() / (2 * c.units * a.head_dim * 2);
  const int groups = static_cast<int>((n + span - 1) / span);
  int64_t rows = 0;  // of the launch so far; columns lie before their group's first query
  c.first_group.push_back(0);
  for (int g = 0; g < groups; ++g) {
    const int64_t most = g * span + cuda::kColumnBox;
    if (most > most_rows) return {};  // gathered instead
    if (rows + most > most_rows) {
      c.first_group.push_back(g);
      rows = 0;
    }
    rows += most;
    c.capacity = std::max(c.capacity, rows);
  }
  c.first_group.push_back(groups);
  c.span = span;
  return c;
}

using Launch = cudaError_t (*)(const cuda::AttendParams&, int, cudaStream_t);

Result run_packed(cuda::AttendParams& p, const PackedColumns& columns, Launch launch, int multiprocessors, void* workspace,
                  cudaStream_t stream) {
  using namespace cuda;
  const QkvView& qkv = p.qkv;
  char* const k = static_cast<char*>(workspace) + kCounterBytes;
  char* const v = k + columns.bytes(qkv) / 2;
  const int64_t d = qkv.head_dim, unit = columns.capacity * d;
  for (auto [map, base] : {std::pair{&p.k[kMapColumns], k}, {&p.v[kMapColumns], v}})
    if (Result r = make_tensor_map(*map, base, qkv.dtype, qkv.head_dim, columns.capacity, columns.units, d, unit, kColumnBox);
        r.status != Status::ok)
      return r;
  const int tiles = p.work.tiles, per_group = static_cast<int>(columns.span / 128);
  for (size_t i = 0; i + 1 < columns.first_group.size(); ++i) {
    p.first_group = columns.first_group[i];
    const int groups = columns.first_group[i + 1] - p.first_group, first = p.first_group * per_group;
    keep_tiles(p.work, first, std::min(tiles, first + groups * per_group) - first);
    if (auto rc = copy_columns(p, columns.units, groups, columns.capacity, k, v, stream); rc != cudaSuccess) return from_cuda(rc);
    if (auto rc = cudaMemsetAsync(workspace, 0, kCounterBytes, stream); rc != cudaSuccess) return from_cuda(rc);
    if (auto rc = launch(p, std::min(multiprocessors, p.work.items), stream); rc != cudaSuccess) return from_cuda(rc);
  }
  return {};
}

Result run_sm90(cuda::AttendParams& p, int multiprocessors, void* workspace, cudaStream_t stream) {
  using namespace cuda;
  const QkvView& qkv = p.qkv;
  const PlanView& plan = p.plan;
  const OutView& out = p.result;
  const int64_t n = qkv.seq_len, d = qkv.head_dim;
  struct {
    CUtensorMap* map;
    const void* base;
    int heads;
    int64_t rows, row, head;
    int box;
    bool used;
  } const maps[] = {
      {&p.q, qkv.q, qkv.q_heads, n, qkv.q_row_stride, qkv.q_head_stride, p.row_box, true},
      {&p.out, out.out, qkv.q_heads, n, out.out_row_stride, out.out_head_stride, p.row_box, p.write_out},
      {&p.k[kMapTile], qkv.k, qkv.kv_heads, n, qkv.k_row_stride, qkv.k_head_stride, p.key_box, true},
      {&p.v[kMapTile], qkv.v, qkv.kv_heads, n, qkv.v_row_stride, qkv.v_head_stride, p.key_box, true},
      {&p.k[kMapPooled], plan.pooled_k, qkv.kv_heads, p.pooled_blocks, d, d * p.pooled_blocks, 128, p.has_pooled},
      {&p.v[kMapPooled], plan.pooled_v, qkv.kv_heads, p.pooled_blocks, d, d * p.pooled_blocks, 128, p.has_pooled},
  };
  for (const auto& m : maps) {
    if (!m.used) continue;
    if (Result r = make_tensor_map(*m.map, m.base, qkv.dtype, qkv.head_dim, m.rows, m.heads, m.row, m.head, m.box);
        r.status != Status::ok)
      return r;
  }
  const bool half = qkv.dtype == Dtype::f16;
  const Launch launch = qkv.head_dim == 128 ? (half ? attend_sm90_d128_f16 : attend_sm90_d128_bf16)
                                            : (half ? attend_sm90_d64_f16 : attend_sm90_d64_bf16);
  const PackedColumns columns = pack_columns(qkv, plan, p);
  p.gathers = p.has_columns && !columns.span;
  if (columns.span) return run_packed(p, columns, launch, multiprocessors, workspace, stream);
  if (auto rc = cudaMemsetAsync(workspace, 0, kCounterBytes, stream); rc != cudaSuccess) return from_cuda(rc);
  return from_cuda(launch(p, std::min(multiprocessors, p.work.items), stream));
}

}  // namespace

const char* attend_cuda_isa() { return use_sm90(current_chip()) ? "sm90a" : "sm80"; }

Result attend_cuda_supports(const QkvView& qkv, const PlanView& plan, const OutView& out) {
  if (Result r = check(qkv, plan, out); r.status != Status::ok) return r;
  const auto p = std::make_unique<cuda::AttendParams>();
  return cuda::build_work_list(qkv, plan, true, *p);
}

size_t attend_cuda_workspace(const QkvView& qkv, const PlanView& plan, const OutView& out) {
  if (!shared_span(plan) || check(qkv, plan, out).status != Status::ok || !use_sm90(current_chip())) return kCounterBytes;
  const auto p = std::make_unique<cuda::AttendParams>();
  if (cuda::build_work_list(qkv, plan, true, *p).status != Status::ok) return kCounterBytes;
  return size_t(kCounterBytes + pack_columns(qkv, plan, *p).bytes(qkv));
}

Result attend_cuda(const QkvView& qkv, const PlanView& plan, const OutView& out, void* workspace, void* stream_handle) {
  using namespace cuda;
  const auto stream = static_cast<cudaStream_t>(stream_handle);
  if (Result r = check(qkv, plan, out); r.status != Status::ok) return r;
  const Chip chip = current_chip();
  if (chip.error != cudaSuccess) return from_cuda(chip.error);
  if (chip.capability < 80) return {Status::unsupported, "the GPU is older than Ampere"};

  AttendParams p{};
  if (Result r = build_work_list(qkv, plan, true, p); r.status != Status::ok) return r;
  const int n = static_cast<int>(qkv.seq_len);
  p.seq_len = n;
  p.head_dim = qkv.head_dim;
  p.scale = qkv.scale;
  p.scale_log2 = qkv.scale * 1.4426950408889634f;
  p.qkv = qkv;
  p.plan = plan;
  p.result = out;
  p.write_out = out.out != nullptr;
  p.next_item = static_cast<int*>(workspace);
  p.has_columns = plan.col_ptr != nullptr;
  p.has_pooled = plan.pooled_k != nullptr;
  if (p.has_pooled) {
    p.pooled_blocks = static_cast<int>((qkv.seq_len + plan.pooled_block - 1) / plan.pooled_block);
    p.pooled_bias = std::log(static_cast<float>(plan.pooled_block)) / qkv.scale;
  }
  if (Result r = use_sm90(chip) ? run_sm90(p, chip.multiprocessors, workspace, stream) : from_cuda(attend_mma(p, stream));
      r.status != Status::ok)
    return r;
  if (!out.tile_mean) return {};
  HeadList wanted{};
  for (int h = 0; h < qkv.q_heads; ++h)
    if (out.want_tile_mean && out.want_tile_mean[h]) {
      wanted.head[wanted.count] = static_cast<int16_t>(h);
      wanted.route[wanted.count++] = plan.heads[h];
    }
  return wanted.count ? from_cuda(tile_means(p, wanted, stream)) : Result{};
}

}  // namespace prefill::kernels
