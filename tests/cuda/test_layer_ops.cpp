// The decoder's steps between its products: kernels against the same formulas in float64 on the CPU. Skips visibly where
// there is no GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/backend.h"
#include "core/base/text.h"
#include "core/model/layer_ops.h"

namespace prefill {
namespace {

#define NEED_DEVICE() \
  if (const Support s = backends().at("cuda").available(); !s) GTEST_SKIP() << s.why

/// Every element within one rounding of the dtype and a few of float32, where the reference is large enough to say.
void expect_rounded(const at::Tensor& got, const at::Tensor& want, const char* what) {
  const double unit = got.scalar_type() == at::kFloat ? 1e-6 : got.scalar_type() == at::kHalf ? 0x1p-11 : 0x1p-8;
  const at::Tensor a = got.cpu().to(at::kDouble);
  const double worst = ((a - want).abs() / (want.abs() + 0.02)).max().item<double>();
  EXPECT_LE(worst, 1.02 * unit) << what;
}

at::Tensor norm64(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x / (x.square().mean(-1, true) + eps).sqrt() * weight;
}

TEST(CudaLayerOps, NormsAndSums) {
  NEED_DEVICE();
  at::manual_seed(1);
  const LayerKernels& kernels = cuda_layer_kernels();
  for (const auto type : {at::kBFloat16, at::kHalf})
    for (int64_t cols : {8, 64, 576, 1024, 1032, 4096, 8192})
      for (int64_t rows : {1, 7, 1000}) {
        SCOPED_TRACE(str(c10::toString(type), " ", rows, " x ", cols));
        const double eps = 1e-5;
        const at::Tensor x = at::randn({rows, cols}), y = at::randn({rows, cols}).to(type);
        const at::Tensor weight = at::randn({cols}).mul_(0.1).add_(1);
        const at::Tensor sum = x.to(at::kDouble) + y.to(at::kDouble), w = weight.to(at::kDouble);
        at::Tensor on = x.cuda();
        const at::Tensor normed = kernels.rms_norm(on, weight.cuda(), eps, type);
        ASSERT_TRUE(normed.defined());
        expect_rounded(normed, norm64(x.to(at::kDouble), w, eps), "norm");
        EXPECT_TRUE(on.cpu().equal(x)) << "a norm alone writes nothing back";
        const at::Tensor both = kernels.add_rms_norm(on, y.cuda(), weight.cuda(), eps, type);
        ASSERT_TRUE(both.defined());
        expect_rounded(on, sum, "sum");
        expect_rounded(both, norm64(sum, w, eps), "sum and norm");
        EXPECT_EQ(both.scalar_type(), type);
        on = x.cuda();
        ASSERT_TRUE(kernels.add_to(on, y.cuda()));
        expect_rounded(on, sum, "sum alone");
      }
}

TEST(CudaLayerOps, GatedProduct) {
  NEED_DEVICE();
  at::manual_seed(2);
  for (const auto type : {at::kBFloat16, at::kHalf})
    for (int64_t cols : {8, 1536, 2056, 14336}) {
      const at::Tensor both = at::randn({37, 2 * cols}).mul_(3).to(type), wide = both.to(at::kDouble);
      const at::Tensor got = cuda_layer_kernels().silu_mul(both.cuda());
      ASSERT_TRUE(got.defined()) << cols;
      const at::Tensor gate = wide.narrow(1, 0, cols);
      expect_rounded(got, gate / (1 + (-gate).exp()) * wide.narrow(1, cols, cols), "silu(gate) * up");
    }
}

TEST(CudaLayerOps, HeadsNormedAndRotated) {
  NEED_DEVICE();
  at::manual_seed(3);
  for (const auto type : {at::kBFloat16, at::kHalf})
    for (const auto& [hq, hkv, dim] : {std::tuple{9, 3, 64}, {32, 8, 128}, {3, 1, 16}, {8, 2, 256}, {4, 4, 80}})
      for (bool normed : {false, true})
        for (int64_t m : {1, 5, 333}) {
          SCOPED_TRACE(str(c10::toString(type), " ", hq, "/", hkv, " heads of ", dim, ", ", m, " rows", normed ? ", normed" : ""));
          const at::Tensor all = at::randn({m, int64_t(hq + 2 * hkv) * dim}).to(type);
          const at::Tensor angle = at::rand({m, dim / 2}) * 6.28, cos = angle.cos(), sin = angle.sin();
          const at::Tensor wq = at::rand({dim}) + 0.5, wk = at::rand({dim}) + 0.5;
          HeadNorms norms{at::Tensor(), at::Tensor(), 1e-6};
          const at::Tensor dq = wq.cuda(), dk = wk.cuda();
          // what the kernel writes lies inside larger tensors that must keep their other elements
          const auto gpu = at::TensorOptions().dtype(type).device(at::kCUDA);
          const at::Tensor queries = at::full({m + 2, hq, dim}, 7, gpu), cache = at::full({2, hkv, m + 9, dim}, 7, gpu);
          const at::Tensor q = queries.narrow(0, 1, m), k = cache[0].narrow(1, 4, m), v = cache[1].narrow(1, 4, m);
          const bool known = normed ? cuda_layer_kernels().split_heads(all.cuda(), {dq, dk, 1e-6}, cos.cuda(), sin.cuda(), q, k, v)
                                    : cuda_layer_kernels().split_heads(all.cuda(), norms, cos.cuda(), sin.cuda(), q, k, v);
          if (normed && dim == 80) {  // no kernel: the sums of a head do not fit a warp's lanes
            EXPECT_FALSE(known);
            continue;
          }
          ASSERT_TRUE(known);
          const at::Tensor heads = all.view({m, hq + 2 * hkv, dim}).to(at::kDouble);
          const auto rotated = [&](at::Tensor x, const at::Tensor& w) {
            if (normed) x = norm64(x, w.to(at::kDouble), 1e-6).to(type).to(at::kDouble);
            const at::Tensor a = x.narrow(2, 0, dim / 2), b = x.narrow(2, dim / 2, dim / 2);
            const at::Tensor c = cos.to(at::kDouble).unsqueeze(1), s = sin.to(at::kDouble).unsqueeze(1);
            return at::cat({a * c - b * s, b * c + a * s}, 2);
          };
          // a norm that rounds the other way moves a dimension and its partner by a unit each
          const auto expect = [&](const at::Tensor& got, const at::Tensor& want, const char* what) {
            if (!normed) return expect_rounded(got, want, what);
            const at::Tensor error = (got.cpu().to(at::kDouble) - want).abs() / (want.abs() + 1);
            EXPECT_LE(error.max().item<double>(), type == at::kHalf ? 0x1p-9 : 0x1p-6) << what;
          };
          expect(q, rotated(heads.narrow(1, 0, hq), wq), "q");
          expect(k.transpose(0, 1), rotated(heads.narrow(1, hq, hkv), wk), "k");
          EXPECT_TRUE(v.transpose(0, 1).cpu().equal(all.view({m, hq + 2 * hkv, dim}).narrow(1, hq + hkv, hkv))) << "v";
          EXPECT_TRUE((queries[0] == 7).all().item<bool>() && (queries[m + 1] == 7).all().item<bool>());
          EXPECT_TRUE((cache.narrow(2, 0, 4) == 7).all().item<bool>() && (cache.narrow(2, m + 4, 5) == 7).all().item<bool>());
        }
}

TEST(CudaLayerOps, OtherCasesAreLeftToAten) {
  NEED_DEVICE();
  const at::Tensor x = at::randn({4, 12}).cuda(), w = at::ones({12}).cuda();  // 12: rows do not stay aligned
  EXPECT_FALSE(cuda_layer_kernels().rms_norm(x, w, 1e-5, at::kBFloat16).defined());
  const at::Tensor wide = at::randn({4, 16}).cuda();
  EXPECT_FALSE(cuda_layer_kernels().rms_norm(wide, at::ones({16}).cuda(), 1e-5, at::kFloat).defined());
  const at::Tensor normed = rms_norm(x, w, 1e-5, at::kBFloat16);
  expect_rounded(normed, norm64(x.cpu().to(at::kDouble), w.cpu().to(at::kDouble), 1e-5), "by ATen");
}

}  // namespace
}  // namespace prefill
