#include "kernels/cuda/attend_tiles_sm90.cuh"

namespace prefill::kernels::cuda {

cudaError_t attend_sm90_d64_f16(const AttendParams& p, int blocks, cudaStream_t stream) {
  return launch_attend_tiles<64, __half>(p, blocks, stream);
}

}  // namespace prefill::kernels::cuda
