// The block-granular choice that FlexPrefill introduced and SharePrefill falls back to: vertical and slash
// stripes that reach a share of the attention, and for query-aware heads the best blocks of the pooled map.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/method.h"
#include "methods/parts/tail.h"

namespace prefill {

struct StripeRules {
  double mass = 0.9;     ///< share that the stripes must reach
  int block = 128;       ///< queries and keys per block
  int count_unit = 128;  ///< tokens that make one stripe when a count of tokens becomes a count of stripes
  int64_t least = 1, most = 1;  ///< stripes of each kind, least <= most
  double tau = 0;         ///< heads nearer than this to the block-mean estimate are query-aware; 0: none
  bool released = false;  ///< ties, bins and zeros as in the released code (see tail.h)
};

/// What is wrong with a block size and budgets in tokens; "" when nothing is.
std::string wrong_sizes(int block_size, int64_t min_budget, int64_t max_budget);

/// Least and most stripes of an n-token prompt from budgets in tokens (max_budget 0: no limit).
void set_budgets(StripeRules&, int64_t min_budget, int64_t max_budget, int64_t n);

struct StripeChoice {
  at::Tensor vertical, slash;     ///< [Hq,nb] attention per key block and per block offset
  at::Tensor verticals, slashes;  ///< int64 [Hq]: stripes to take
  at::Tensor aware;               ///< bool [Hq], or undefined when tau is 0
};

/// Attention that the mean of the last `rows` queries pays to the mean key of every block: [Hq,nb] float32.
/// key_mean [Hkv,nb,D] from pool_mean.
at::Tensor block_mean_estimate(const Qkv&, const at::Tensor& key_mean, int64_t rows);

/// Counts and query-aware test. from_means is read only when tau > 0. never_aware: heads that the test leaves
/// out.
StripeChoice choose_stripes(const TailStats&, const at::Tensor& from_means, const StripeRules&,
                            const std::vector<int64_t>& never_aware = {});

struct StripeSets {
  at::Tensor vertical, slash;  ///< bool [Hq,nb]
};
/// The largest stripes by count; key block 0 and block offset 0 are always among them.
StripeSets take_stripes(const StripeChoice&);

/// Adds to mask [Hq,nb,nb] (bool) of the heads that aware [Hq] marks the blocks of their pooled map that hold
/// `mass` of the whole map, all rows together, causal. Released leaves out the block that crosses the target,
/// intended takes it. key_mean [Hkv,nb,D].
void add_query_aware_blocks(const LayerContext&, const at::Tensor& key_mean, const at::Tensor& aware,
                            const StripeRules&, at::Tensor mask);

}  // namespace prefill
