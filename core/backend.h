// A backend executes plans. Backends override the estimators only to be faster: the base class writes them in
// ATen, right on every device.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/plan.h"
#include "core/registry.h"

namespace prefill {

/// One prompt, one layer, after RoPE. q [Hq,N,D]; k, v [Hkv,N,D]; Hq a multiple of Hkv, query head h reads
/// key/value head h / (Hq/Hkv). Innermost stride is 1; the other strides are free (the model hands over views
/// of its projections). scale is usually 1/sqrt(D).
struct Qkv {
  at::Tensor q, k, v;
  double scale = 0;
  int q_heads() const { return int(q.size(0)); }
  int kv_heads() const { return int(k.size(0)); }
  int64_t seq_len() const { return q.size(1); }
  int head_dim() const { return int(q.size(2)); }
};

struct AttendResult {
  at::Tensor out;        ///< [Hq,N,D] in q's dtype (any strides, innermost 1)
  at::Tensor lse;        ///< [Hq,N] float32, natural log; undefined unless asked for
  at::Tensor tile_mean;  ///< [heads that asked, rows, key tiles] float32: sum of probabilities in the tile /
                         ///< valid queries of the row, so that each row sums to 1; 0 above the diagonal
};

struct AttendOptions {
  bool lse = false;
};

struct Support {
  bool ok = true;
  std::string why;
  explicit operator bool() const { return ok; }
};

class KernelBackend {
 public:
  virtual ~KernelBackend() = default;
  virtual std::string name() const = 0;
  /// What actually computes, for the results row: "avx2", "amx-bf16", "sm90a", ...
  virtual std::string kernel_name(const Qkv&, const AttentionPlan&) const = 0;
  virtual at::Device device() const = 0;
  virtual Support supports(const Qkv&, const AttentionPlan&) const = 0;
  virtual AttendResult attend(const Qkv&, const AttentionPlan&, AttendOptions = {}) const = 0;
  /// Like attend, but hands over the softmax state instead of dividing by the row sum (AnchorAttention).
  virtual PartialSoftmax attend_partial(const Qkv&, const AttentionPlan&) const;

  /// Where this backend's stages are timed (CUDA: event pairs). The default reads the host's clock.
  virtual std::unique_ptr<StageClock> make_clock() const { return make_cpu_clock(); }
  /// Waits until all work handed to the device is done; a no-op on CPUs.
  virtual void synchronize() const {}
  /// Most bytes held on the device since the last reset_peak(); 0 where nobody counts (CPUs: see peak RSS).
  virtual int64_t peak_bytes() const { return 0; }
  virtual void reset_peak() const {}
  /// What the numbers depend on, for the results: "NVIDIA H200", or the CPU's name.
  virtual std::string hardware() const;

  // Estimators.
  /// Mean over tiles of `tile` rows, true count in the last: [H,N,D] -> [H,ceil(N/tile),D] float32.
  virtual at::Tensor pool_mean(const at::Tensor& x, int tile) const;
  /// Causal softmax rows of the last `tail` queries (tail is cut at N): [Hq,tail,N] float32.
  virtual at::Tensor tail_probs(const Qkv&, int64_t tail) const;
  /// Column sums and distance sums of tail_probs without keeping the map: {vertical [Hq,N], slash [Hq,N]}
  /// where vertical[j] = sum over the tail rows of P[i,j] and slash[d] = sum over the tail rows of P[i, pos_i
  /// - d].
  virtual std::pair<at::Tensor, at::Tensor> tail_sums(const Qkv&, int64_t tail) const;
};

struct BackendInfo {
  std::string name = {}, doc = {}, file = {};
  std::function<Support()> available = {};  ///< "no" carries what would mend it
  std::function<std::unique_ptr<KernelBackend>()> make = {};
};
Registry<BackendInfo>& backends();
struct RegisterBackend {
  explicit RegisterBackend(BackendInfo info) { backends().add(std::move(info)); }
};

}  // namespace prefill
