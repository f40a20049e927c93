// Recording q, k and v of chosen layers on their way to attention.
#pragma once
#include <map>
#include <set>

#include "core/engine.h"

namespace prefill {

/// Passes everything on to another hook and keeps copies (on the CPU) of the layers asked for.
class CaptureHook final : public AttentionHook {
 public:
  CaptureHook(AttentionHook& inner, std::set<int> layers) : inner_(inner), layers_(std::move(layers)) {}
  at::Tensor prefill(int layer, const Qkv& qkv) override;

  std::map<int, Qkv>
      captured;  ///< by layer; [Hq,N,D] and [Hkv,N,D] contiguous, after RoPE, in the model's dtype

 private:
  AttentionHook& inner_;
  std::set<int> layers_;
};

}  // namespace prefill
