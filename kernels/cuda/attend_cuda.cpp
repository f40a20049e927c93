// kernels/api.h's CUDA attention: checks, tensor maps, work list, launch.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "kernels/api.h"
#include "kernels/cuda/attend_sm90.h"
#include "kernels/cuda/tensor_maps.h"
#include "kernels/cuda/work_list.h"

namespace prefill::kernels {
namespace {

Result from_cuda(cudaError_t rc) {
  if (rc == cudaSuccess) return {};
  return {rc == cudaErrorMemoryAllocation ? Status::out_of_memory : Status::device_error, cudaGetErrorString(rc)};
}

}  // namespace

size_t attend_cuda_workspace(const QkvView&, const PlanView&, const OutView&) { return 256; }

Result attend_cuda(const QkvView& qkv, const PlanView& plan, const OutView& out, void* workspace, void* stream_handle) {
  using namespace cuda;
  const auto stream = static_cast<cudaStream_t>(stream_handle);
  if (qkv.dtype != Dtype::bf16 && qkv.dtype != Dtype::f16) return {Status::unsupported, "dtype must be bfloat16 or float16"};
  if (qkv.head_dim != 64 && qkv.head_dim != 128) return {Status::unsupported, "head_dim must be 64 or 128"};
  if (qkv.kv_heads < 1 || qkv.q_heads % qkv.kv_heads) return {Status::bad_argument, "q_heads must be a multiple of kv_heads"};
  if (qkv.seq_len < 1 || qkv.seq_len > (1 << 28)) return {Status::bad_argument, "seq_len out of range"};
  int device = 0, multiprocessors = 0;
  if (auto rc = cudaGetDevice(&device); rc != cudaSuccess) return from_cuda(rc);
  if (auto rc = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device); rc != cudaSuccess)
    return from_cuda(rc);

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
  const int64_t d = qkv.head_dim;
  if (p.has_pooled) {
    p.pooled_blocks = static_cast<int>((qkv.seq_len + plan.pooled_block - 1) / plan.pooled_block);
    p.pooled_bias = std::log(static_cast<float>(plan.pooled_block)) / qkv.scale;
  }
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
      {&p.k[kMapRow], qkv.k, qkv.kv_heads, n, qkv.k_row_stride, qkv.k_head_stride, 1, p.has_columns},
      {&p.v[kMapRow], qkv.v, qkv.kv_heads, n, qkv.v_row_stride, qkv.v_head_stride, 1, p.has_columns},
      {&p.k[kMapPooled], plan.pooled_k, qkv.kv_heads, p.pooled_blocks, d, d * p.pooled_blocks, 128, p.has_pooled},
      {&p.v[kMapPooled], plan.pooled_v, qkv.kv_heads, p.pooled_blocks, d, d * p.pooled_blocks, 128, p.has_pooled},
  };
  for (const auto& m : maps) {
    if (!m.used) continue;
    if (Result r = make_tensor_map(*m.map, m.base, qkv.dtype, qkv.head_dim, m.rows, m.heads, m.row, m.head, m.box);
        r.status != Status::ok)
      return r;
  }
  if (auto rc = cudaMemsetAsync(workspace, 0, 256, stream); rc != cudaSuccess) return from_cuda(rc);
  const int blocks = std::min(multiprocessors, p.work.items);
  const bool half = qkv.dtype == Dtype::f16;
  const auto launch = qkv.head_dim == 128 ? (half ? attend_sm90_d128_f16 : attend_sm90_d128_bf16)
                                          : (half ? attend_sm90_d64_f16 : attend_sm90_d64_bf16);
  return from_cuda(launch(p, blocks, stream));
}

}  // namespace prefill::kernels
