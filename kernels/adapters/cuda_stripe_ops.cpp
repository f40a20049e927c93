// FlexPrefill's and SharePrefill's steps from the sums of the last queries to a mask of blocks, behind core/device_ops.h.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/device_ops.h"
#include "kernels/adapters/cuda_tensors.h"
#include "kernels/selection.h"

namespace prefill {
namespace {

constexpr int64_t kMostCells = int64_t(1) << 28;  ///< of all heads' pooled maps: 1 GiB

using adapters::half;
using adapters::half_dtype;
using adapters::known;
using adapters::stream_of;

uint8_t* bytes(const at::Tensor& t) { return reinterpret_cast<uint8_t*>(t.data_ptr<bool>()); }

bool fits(const at::Tensor& q, const at::Tensor& key_mean) {
  return half(q) && q.stride(2) == 1 &&
         key_mean.scalar_type() == at::kFloat && key_mean.is_contiguous();
}
kernels::BlockMeansArgs means(const at::Tensor& q, const at::Tensor& key_mean, double scale, int64_t block) {
  kernels::BlockMeansArgs a{};
  a.q = q.const_data_ptr(), a.dtype = half_dtype(q);
  a.q_heads = int(q.size(0)), a.kv_heads = int(key_mean.size(0)), a.dim = int(q.size(2));
  a.seq_len = q.size(1), a.q_head_stride = q.stride(0), a.q_row_stride = q.stride(1);
  a.key_mean = key_mean.const_data_ptr<float>(), a.block = int(block), a.blocks = int(key_mean.size(1)), a.scale = float(scale);
  return a;
}

at::Tensor tail_block_means(const at::Tensor& q, const at::Tensor& key_mean, double scale, int64_t rows) {
  if (!fits(q, key_mean)) return {};
  const c10::cuda::CUDAGuard guard(q.device());
  const at::Tensor probs = at::empty({q.size(0), key_mean.size(1)}, key_mean.options());
  const bool done =
      known(kernels::tail_block_means_cuda(means(q, key_mean, scale, 0), rows, probs.data_ptr<float>(), stream_of(q)));
  return done ? probs : at::Tensor();
}

DeviceOps::StripeNumbers choose_stripes(const at::Tensor& vertical, const at::Tensor& slash, const at::Tensor& from_means,
                                        const at::Tensor& vertical_count, const at::Tensor& slash_count,
                                        const DeviceOps::StripeTest& how) {
  const c10::cuda::CUDAGuard guard(vertical.device());
  const at::Tensor v = vertical.contiguous(), s = slash.contiguous(), estimate = from_means.defined() ? from_means.contiguous() : from_means;
  const int64_t heads = v.size(0), blocks = (v.size(1) + how.block - 1) / how.block;
  DeviceOps::StripeNumbers out{at::empty({heads, blocks}, v.options()), at::empty({heads, blocks}, v.options()),
                               at::empty({heads}, vertical_count.options()), at::empty({heads}, vertical_count.options()),
                               at::empty({heads}, v.options().dtype(at::kBool))};
  kernels::StripeChoiceArgs a{};
  a.vertical = v.const_data_ptr<float>(), a.slash = s.const_data_ptr<float>();
  if (estimate.defined()) a.from_means = estimate.const_data_ptr<float>();
  a.vertical_count = vertical_count.const_data_ptr<int64_t>(), a.slash_count = slash_count.const_data_ptr<int64_t>();
  a.heads = heads, a.n = v.size(1), a.block = int(how.block), a.blocks = int(blocks);
  a.count_unit = how.count_unit, a.least = how.least, a.most = how.most, a.tau = how.tau;
  a.vertical_bins = out.vertical.data_ptr<float>(), a.slash_bins = out.slash.data_ptr<float>();
  a.verticals = out.verticals.data_ptr<int64_t>(), a.slashes = out.slashes.data_ptr<int64_t>(), a.aware = bytes(out.aware);
  adapters::raise_on(kernels::stripe_choice_cuda(a, stream_of(v)), "cuda");
  return out;
}

at::Tensor top_counts(const at::Tensor& scores, const at::Tensor& counts, int64_t forced) {
  if (scores.scalar_type() != at::kFloat) return {};
  const c10::cuda::CUDAGuard guard(scores.device());
  const at::Tensor x = scores.contiguous(), wanted = counts.contiguous();
  const at::Tensor mask = at::empty(x.sizes(), x.options().dtype(at::kBool));
  const bool done = known(kernels::top_counts_cuda(x.const_data_ptr<float>(), wanted.const_data_ptr<int64_t>(), x.size(0),
                                                              x.size(1), forced, bytes(mask), stream_of(x)));
  return done ? mask : at::Tensor();
}

at::Tensor stripe_mask(const at::Tensor& vertical, const at::Tensor& slash) {
  const c10::cuda::CUDAGuard guard(vertical.device());
  const at::Tensor v = vertical.contiguous(), s = slash.contiguous();
  const at::Tensor mask = at::empty({v.size(0), v.size(1), v.size(1)}, v.options());
  adapters::raise_on(kernels::stripe_mask_cuda(bytes(v), bytes(s), v.size(0), v.size(1), bytes(mask), stream_of(v)), "cuda");
  return mask;
}

bool add_aware_blocks(const at::Tensor& q, const at::Tensor& key_mean, const at::Tensor& aware, double scale, int64_t block,
                      double mass, const at::Tensor& mask) {
  if (!fits(q, key_mean) || !mask.is_contiguous() || mask.numel() > kMostCells) return false;
  const c10::cuda::CUDAGuard guard(q.device());
  const at::Tensor map = at::empty({mass < 1 ? mask.numel() : 0}, key_mean.options());
  return known(kernels::add_aware_blocks_cuda(means(q, key_mean, scale, block), bytes(aware), mass, map.data_ptr<float>(),
                                                        bytes(mask), stream_of(q)));
}

const bool stripe_ops_registered = [] {
  DeviceOps& ops = cuda_ops();
  ops.tail_block_means = tail_block_means, ops.choose_stripes = choose_stripes, ops.top_counts = top_counts;
  ops.stripe_mask = stripe_mask, ops.add_aware_blocks = add_aware_blocks;
  return true;
}();

}  // namespace
}  // namespace prefill
