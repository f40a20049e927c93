// Random inputs and plans, and what they must give: brute force in ATen double precision from the token mask.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>

#include "core/backend.h"
#include "core/plan.h"

namespace prefill::testing {

struct Shape {
  int q_heads = 4, kv_heads = 2;
  int64_t n = 100;
  int dim = 64;
  at::ScalarType dtype = at::kFloat;
};

/// Normal q, k, v. strided: storage is [N,H,D], seen as [H,N,D], as a model hands it over.
Qkv random_qkv(const Shape&, uint64_t seed, bool strided = false);

struct PlanOptions {
  int q_tile = 64, k_tile = 64, k_step = 0;  ///< k_step > 0: tiles start at multiples of it
  double density = 0.4;                      ///< chance of every tile off the diagonal
  bool columns = false;
  int col_rows = 1;
  bool diagonal = true;  ///< false: rows may lack their diagonal (plans that resume one that had it)
  int patterns = 2;
  bool mixed_routes = true;  ///< heads cycle through patterns, dense and windows; false: patterns only
};
AttentionPlan random_plan(const Shape&, const PlanOptions&, uint64_t seed);

/// k_mean and v_mean of random tensors, for plans of this shape.
PooledComplement random_complement(const Shape&, int block, uint64_t seed);

struct Expected {
  at::Tensor out, lse, tile_mean, row_max, row_sum;  ///< double; tile_mean for every head
};
Expected brute_force(const Qkv&, const AttentionPlan&);

/// Mean squared error over mean square of `want`; infinity if `got` has a value that is not finite.
double nmse(const at::Tensor& got, const at::Tensor& want);
/// Bound for an output of this dtype; the comment in support.cpp says where it comes from.
double nmse_bound(at::ScalarType);

}  // namespace prefill::testing
