// Columns that many rows share, copied side by side: an attention kernel then reads them as fast as tiles.
#include "kernels/cuda/copy_columns.h"

namespace prefill::kernels::cuda {
namespace {

constexpr int kThreads = 256, kRows = kColumnBox;  ///< rows of K and V that a block copies

__global__ void __launch_bounds__(kThreads)
    copy_columns_kernel(const __grid_constant__ AttendParams p, int64_t capacity, uint4* k_out, uint4* v_out) {
  const Unit& unit = p.work.units[blockIdx.y];
  if (unit.kind != 2) return;
  const int group = p.first_group + int(blockIdx.z);
  const int32_t* ptr = p.plan.col_ptr + unit.index * p.plan.col_ptr_stride;
  const int begin = ptr[group], count = ptr[group + 1] - begin, first = int(blockIdx.x) * kRows;
  if (first >= count) return;
  const int32_t* columns = p.plan.col_idx + unit.index * p.plan.col_idx_stride + begin;
  const int pieces = p.head_dim / 8, piece = threadIdx.x % pieces;  // of 16 bytes
  const auto row_of = [&](const void* tensor, int64_t head_stride, int64_t row_stride, int key) {
    return static_cast<const uint4*>(tensor) + (unit.kv_head * head_stride + key * row_stride) / 8 + piece;
  };
  const int64_t place = blockIdx.y * capacity + (begin - ptr[p.first_group]) + int64_t(kColumnBox) * blockIdx.z;
  for (int row = first + int(threadIdx.x) / pieces; row < first + kRows; row += kThreads / pieces) {
    uint4 key{}, value{};
    if (row < count) {
      const int column = columns[row];
      key = *row_of(p.qkv.k, p.qkv.k_head_stride, p.qkv.k_row_stride, column);
      value = *row_of(p.qkv.v, p.qkv.v_head_stride, p.qkv.v_row_stride, column);
    }
    k_out[(place + row) * pieces + piece] = key;
    v_out[(place + row) * pieces + piece] = value;
  }
}

}  // namespace

cudaError_t copy_columns(const AttendParams& p, int units, int groups, int64_t capacity, void* k, void* v, cudaStream_t stream) {
  const int64_t longest = int64_t(p.first_group + groups - 1) * p.plan.col_rows * p.plan.q_tile;
  if (longest == 0) return cudaSuccess;  // the first group has no earlier keys
  const dim3 grid(unsigned((longest + kRows - 1) / kRows), unsigned(units), unsigned(groups));
  copy_columns_kernel<<<grid, kThreads, 0, stream>>>(p, capacity, static_cast<uint4*>(k), static_cast<uint4*>(v));
  return cudaGetLastError();
}

}  // namespace prefill::kernels::cuda
