// SharePrefill: heads that an offline clustering found alike borrow the block pattern that one of them, the
// pivot (the first of them, or the one that the clustering appointed), learnt from its own full attention on
// this prompt. Heads that may not borrow use stripes as FlexPrefill.
#include <ATen/ATen.h>

#include <map>
#include <set>

#include "core/base/text.h"
#include "core/method.h"
#include "methods/parts/on_device.h"
#include "methods/parts/share_clusters.h"
#include "methods/parts/stripes.h"
#include "methods/parts/vertical_slash.h"

namespace prefill {
namespace {

struct SharePrefillParams {
  Path lookup;
  std::string clusters = "listed", pivot = "first";
  double pattern_threshold = 0.9, similarity_threshold = 0.5, fallback_threshold = 0.9,
         queryaware_threshold = 0.1;
  int block_size = 128;
  int64_t min_budget = 1024, max_budget = 0;
  bool sharing = true;
  std::string semantics = "intended";
  template <class V>
  void fields(V& v) {
    v("lookup", lookup, any(),
      "cluster file: the released lookup format, or what `calibrate shareprefill` wrote; "
      "empty: no head shares. Under --tensor-parallel heads share with those of their own rank only");
    v("clusters", clusters, one_of({"listed", "all"}),
      "listed: the file's shared_clusters may share; all: every "
      "cluster of two heads or more");
    v("pivot", pivot, one_of({"first", "best"}),
      "who teaches a cluster. first: its first head on this prompt that is not query-aware; best: the head "
      "which its heads of later layers resemble most by the file's best_pivots, query-aware or not (heads up "
      "to its layer keep their own stripes). Under --tensor-parallel a rank without that head takes its own "
      "first (facts: clusters_first_come)");
    v("pattern_threshold", pattern_threshold, in(0, 1),
      "share of the attention that stripes, query-aware blocks and "
      "each row of a pivot's pattern must reach; 1: all");
    v("similarity_threshold", similarity_threshold, in(0, 1),
      "largest distance (square root of the Jensen-Shannon "
      "divergence, at most 0.83) from the pivot's stripes at "
      "which a head borrows");
    v("fallback_threshold", fallback_threshold, in(0, 100),
      "no borrowing when the pivot's own stripes already hold "
      "this share of its attention");
    v("queryaware_threshold", queryaware_threshold, in(0, 1), "as FlexPrefill's tau; 0: never");
    v("block_size", block_size, in(16, 128), "queries and keys per block: 16, 32, 64 or 128");
    v("min_budget", min_budget, at_least(1),
      "least tokens for the vertical stripes, and again for the slash stripes");
    v("max_budget", max_budget, at_least(0),
      "most tokens for the vertical stripes, and again for the slash; 0: no limit");
    v("sharing", sharing, any(), "false: no pivots and no borrowing, whatever the file says (ablation)");
    v("semantics", semantics, one_of({"released", "intended"}),
      "rules of the released code, or as they were meant");
  }
  std::string invalid() const { return wrong_sizes(block_size, min_budget, max_budget); }
};

/// What one head taught the prompt.
struct Pivot {
  at::Tensor vertical, slash;          ///< [nb] its stripes' attention
  at::Tensor vertical_set, slash_set;  ///< bool [nb] its own stripes
  at::Tensor pattern;                  ///< bool [nb,nb]; undefined until its layer has been attended
  double stripe_mass = 0;              ///< share of its attention that its own stripes hold
};

struct SharePrefillState : Method::State {
  std::map<int, Pivot> by_cluster;
  std::vector<std::pair<int, int>> teaching;  ///< (head, cluster) of the layer in flight, heads ascending
  nlohmann::json pivots = nlohmann::json::array();  ///< [layer, head of the model], as appointed
  int64_t shared = 0, stripe_heads = 0, query_aware = 0;
  at::Tensor
      jaccard_sum;  ///< pivot's pattern against the borrower's own stripes; float64 on the prompt's device
};

class SharePrefill final : public MethodOf<SharePrefillParams, SharePrefillState> {
 public:
  SharePrefill(SharePrefillParams p, MethodEnv e)
      : MethodOf(std::move(p), std::move(e)),
        clusters_(params.lookup.text.empty() || !params.sharing
                      ? no_clusters(env.model)
                      : read_head_clusters(params.lookup.text, env.model, params.clusters == "all")) {
    if (params.pivot == "best") appoint_best();
    for (auto& layer : clusters_.cluster_of) layer = env.own(layer);
  }

  AttentionPlan plan_layer(const LayerContext& c, SharePrefillState& s) const override {
    const StripeRules rules = rules_for(c.seq_len);
    TailStats tail;
    at::Tensor key_mean, from_means;
    {
      StageScope stage(c.clock, Stage::estimate, c.layer);
      tail = tail_stats(c, params.block_size);
      if (rules.tau > 0) {
        key_mean = c.backend.pool_mean(c.qkv.k, params.block_size);
        from_means = block_mean_estimate(c.qkv, key_mean, tail.rows);
      }
    }
    AttentionPlan plan = AttentionPlan::uniform(c.qkv.q_heads(), {Route::tiles, 0});
    at::Tensor mask;
    {
      StageScope stage(c.clock, Stage::select, c.layer);
      mask = choose(c, rules, tail, key_mean, from_means, plan, s);
    }
    StageScope stage(c.clock, Stage::index, c.layer);
    plan.tiles = tiles_from_mask(mask, params.block_size, params.block_size);
    for (size_t h = 0; h < plan.heads.size(); ++h)
      if (plan.heads[h].kind == Route::tiles) plan.heads[h].index = int32_t(h);
    return plan;
  }

  void learn(const LayerContext&, const AttendResult& r, SharePrefillState& s) const override {
    for (size_t i = 0; i < s.teaching.size(); ++i) {
      Pivot& pivot = s.by_cluster.at(s.teaching[i].second);
      const at::Tensor mass = r.tile_mean[int64_t(i)];
      pivot.pattern = pattern_of(mass);
      pivot.stripe_mass = stripe_mass(pivot, mass);
    }
    s.teaching.clear();
  }

  nlohmann::json facts(const SharePrefillState& s) const override {
    nlohmann::json out = {{"clusters", clusters_.clusters}, {"cluster_heads", clusters_.sharing_heads},
                          {"pivot", params.pivot},          {"pivots", s.pivots.size()},
                          {"pivot_heads", s.pivots},        {"shared_heads", s.shared},
                          {"stripe_heads", s.stripe_heads}, {"query_aware_heads", s.query_aware}};
    if (params.pivot == "best") out["clusters_first_come"] = first_come_;
    if (s.shared > 0) out["mean_jaccard"] = s.jaccard_sum.item<double>() / double(s.shared);
    return out;
  }

 private:
  bool released() const { return params.semantics == "released"; }

  /// Finds the appointed heads of this process (all of them, or a rank's share).
  void appoint_best() {
    if (clusters_.clusters > 0 && clusters_.best_pivots.empty())
      throw InputError(str(params.lookup.text,
                           ": pivot=best needs 'best_pivots', which the file does not have; `prefillbench "
                           "calibrate shareprefill` writes them"));
    std::set<int> here;
    for (const auto& layer : clusters_.cluster_of)
      for (const int cluster : env.own(layer)) here.insert(cluster);
    for (int cluster = 0; cluster < clusters_.clusters; ++cluster) {
      const auto [layer, head] = clusters_.best_pivots[size_t(cluster)];
      if (env.heads.count == 0 || (head >= env.heads.first && head < env.heads.first + env.heads.count))
        appointed_[cluster] = {layer, head - env.heads.first};
      else
        first_come_ += here.count(cluster);
    }
  }

  /// Whether the head may become its cluster's pivot.
  bool eligible(int cluster, int layer, int head) const {
    const auto appointed = appointed_.find(cluster);
    return appointed == appointed_.end() || appointed->second == std::pair{layer, head};
  }

  StripeRules rules_for(int64_t n) const {
    StripeRules rules;
    rules.mass = params.pattern_threshold;
    rules.block = rules.count_unit = params.block_size;
    rules.tau = params.queryaware_threshold;
    rules.released = released();
    set_budgets(rules, params.min_budget, params.max_budget, n);
    return rules;
  }

  /// Decides head by head and returns the blocks [Hq,nb,nb] (of heads routed to tiles; a pivot's row is
  /// unused).
  at::Tensor choose(const LayerContext& c, const StripeRules& rules, const TailStats& tail,
                    const at::Tensor& key_mean, const at::Tensor& from_means, AttentionPlan& plan,
                    SharePrefillState& s) const {
    const int heads = c.qkv.q_heads();
    std::vector<int64_t> appointed;
    for (const auto& [cluster, pivot] : appointed_)
      if (pivot.first == c.layer) appointed.push_back(pivot.second);
    StripeChoice choice = choose_stripes(tail, from_means, rules, appointed);
    const at::Tensor aware_host =
        choice.aware.defined() ? choice.aware.to(at::kCPU) : at::zeros({heads}, at::kBool);
    const bool* aware = aware_host.const_data_ptr<bool>();

    std::vector<int64_t> borrowers, lenders;  // heads, and their clusters
    std::vector<std::pair<int, int>> new_pivots;
    for (int h = 0; h < heads; ++h) {
      const int cluster = clusters_.cluster_of.at(size_t(c.layer)).at(size_t(h));
      if (aware[h] || cluster < 0) continue;
      const auto pivot = s.by_cluster.find(cluster);
      if (pivot == s.by_cluster.end()) {
        if (!eligible(cluster, c.layer, h)) continue;
        s.by_cluster.emplace(cluster,
                             Pivot{});  // reserved: later heads of this layer find it without a pattern
        new_pivots.emplace_back(h, cluster);
      } else if (pivot->second.pattern.defined() && pivot->second.stripe_mass < params.fallback_threshold) {
        borrowers.push_back(h);
        lenders.push_back(cluster);
      }
    }
    keep_similar(choice, borrowers, lenders, s);
    // Borrowers, like query-aware heads, add only the least stripes of their own.
    const at::Tensor least = at::full({int64_t(borrowers.size())}, rules.least, choice.verticals.options());
    const at::Tensor who = on_device(borrowers, choice.verticals.device());
    const StripeSets own_full = borrowers.empty() ? StripeSets{} : take_stripes(choice);
    choice.verticals.index_put_({who}, least);
    choice.slashes.index_put_({who}, least);
    const StripeSets sets = take_stripes(choice);
    at::Tensor mask = stripe_mask(sets.vertical, sets.slash);

    if (!borrowers.empty()) {
      std::vector<at::Tensor> patterns;
      for (int64_t cluster : lenders) patterns.push_back(s.by_cluster.at(int(cluster)).pattern);
      const at::Tensor borrowed = at::stack(patterns);
      const at::Tensor own =
          stripe_mask(own_full.vertical.index_select(0, who), own_full.slash.index_select(0, who));
      const at::Tensor alike =
          ((own & borrowed).sum({1, 2}).to(at::kDouble) / (own | borrowed).sum({1, 2})).sum();
      s.jaccard_sum = s.jaccard_sum.defined() ? s.jaccard_sum + alike : alike;
      mask.index_put_({who}, mask.index_select(0, who) | borrowed);
    }
    if (choice.aware.defined()) {
      add_query_aware_blocks(c, key_mean, choice.aware, rules, mask);
      s.query_aware += aware_host.sum().item<int64_t>();
    }
    if (!new_pivots.empty()) appoint(c.layer, new_pivots, choice, sets, plan, s);
    s.shared += int64_t(borrowers.size());
    s.stripe_heads = s.stripe_heads + heads - int64_t(borrowers.size()) - int64_t(new_pivots.size()) -
                     aware_host.sum().item<int64_t>();
    return mask;
  }

  /// Drops the borrowers whose stripes differ too much from their pivot's.
  void keep_similar(const StripeChoice& choice, std::vector<int64_t>& borrowers,
                    std::vector<int64_t>& lenders, const SharePrefillState& s) const {
    if (borrowers.empty()) return;
    std::vector<at::Tensor> vertical, slash;
    for (int64_t cluster : lenders) {
      vertical.push_back(s.by_cluster.at(int(cluster)).vertical);
      slash.push_back(s.by_cluster.at(int(cluster)).slash);
    }
    const at::Tensor who = on_device(borrowers, choice.verticals.device());
    const at::Tensor near = (sqrt_js(at::stack(vertical), choice.vertical.index_select(0, who), released())
                                 .lt(params.similarity_threshold) &
                             sqrt_js(at::stack(slash), choice.slash.index_select(0, who), released())
                                 .lt(params.similarity_threshold))
                                .to(at::kCPU);
    std::vector<int64_t> heads, clusters;
    for (size_t i = 0; i < borrowers.size(); ++i)
      if (near.const_data_ptr<bool>()[i]) {
        heads.push_back(borrowers[i]);
        clusters.push_back(lenders[i]);
      }
    borrowers = std::move(heads);
    lenders = std::move(clusters);
  }

  void appoint(int layer, const std::vector<std::pair<int, int>>& chosen, const StripeChoice& choice,
               const StripeSets& sets, AttentionPlan& plan, SharePrefillState& s) const {
    plan.want_tile_mean.assign(plan.heads.size(), 0);
    for (const auto& [h, cluster] : chosen) {
      Pivot& p = s.by_cluster.at(cluster);
      p.vertical = choice.vertical[h].clone();
      p.slash = choice.slash[h].clone();
      p.vertical_set = sets.vertical[h].clone();
      p.slash_set = sets.slash[h].clone();
      plan.heads[size_t(h)] = {Route::dense, 0};
      plan.want_tile_mean[size_t(h)] = 1;
      s.teaching.emplace_back(h, cluster);
      s.pivots.push_back(nlohmann::json::array({layer, env.heads.first + h}));
    }
  }

  /// Per row, the blocks with the largest mass until pattern_threshold is reached, the crossing one included.
  at::Tensor pattern_of(const at::Tensor& mass) const {
    auto [sorted, order] = mass.sort(-1, true);
    const at::Tensor reached = sorted.cumsum(-1);
    at::Tensor keep = (reached - sorted).lt(params.pattern_threshold);
    // Rounding may leave a row just short of the threshold. Released: such a row keeps its first block only.
    if (released()) {
      const at::Tensor first = at::arange(mass.size(1), order.options()).eq(0);
      keep = at::where(reached.select(1, -1).ge(params.pattern_threshold).unsqueeze(1), keep, first);
    }
    const at::Tensor causal = at::ones(mass.sizes(), keep.options()).tril();
    return at::zeros_like(keep).scatter(1, order, keep) & causal;
  }

  /// Share of the pivot's attention on its own stripes. Released: over its list with everything the list
  /// repeats: entries above the diagonal or past the end stand as block (0,0).
  double stripe_mass(const Pivot& p, const at::Tensor& mass) const {
    const double all = mass.sum().item<double>();
    if (!released())
      return mass.masked_select(stripe_mask(p.vertical_set.unsqueeze(0), p.slash_set.unsqueeze(0))[0])
                 .sum()
                 .item<double>() /
             all;
    const int64_t blocks = mass.size(0);
    const at::Tensor m = mass.to(at::kCPU, at::kDouble);
    const at::Tensor v = p.vertical_set.to(at::kCPU), d = p.slash_set.to(at::kCPU);
    const double corner = m[0][0].item<double>();
    double sum = 0;
    for (int64_t i = 0; i < blocks; ++i) {
      if (v[i].item<bool>()) sum += m.select(1, i).sum().item<double>() + double(i) * corner;
      if (d[i].item<bool>()) sum += m.diagonal(-i).sum().item<double>() + double(i) * corner;
    }
    return sum / all;
  }

  HeadClusters clusters_;
  std::map<int, std::pair<int, int>> appointed_;  ///< cluster -> (layer, own head); others: first come
  size_t first_come_ = 0;  ///< clusters of own heads whose best pivot is not among them
};

}  // namespace

PREFILL_METHOD(
    SharePrefill,
    {.name = "shareprefill",
     .version = 2,
     .doc = "heads of an offline cluster borrow the block pattern that one of them, the pivot, has on the "
            "prompt",
     .source =
         "Peng et al., arXiv 2505.19578; repository opas-lab/SharePrefill. Defaults are those of its "
         "configuration "
         "(0.9, 0.5, 0.9, 0.1, block 128, min_budget 1024); its evaluation scripts use pattern and fallback "
         "thresholds of 0.95",
     .deviations = "Without a lookup file no head shares and every head is query-aware or uses stripes "
                   "(facts: clusters = 0). A "
                   "pivot runs dense attention and reports its block mass, as released; pivot=best is this "
                   "project's, for ablation. released keeps: "
                   "slash bins anchored at "
                   "the largest distance; the fallback test over the pivot's stripe list with repeated "
                   "entries, each counted, "
                   "which practically never lets a head borrow; exact zeros make a distance NaN; a row that "
                   "rounding keeps below "
                   "the threshold keeps one block. intended mends all four (unique blocks, bins from "
                   "distance 0, finite "
                   "distances, the whole row) and takes the crossing block for query-aware heads. A prompt "
                   "shorter than a block "
                   "is computed here (released: fails)",
     .cost = "FlexPrefill's (2*block*n*D*Hq FLOP for the tail, two sorts of n per head); per pivot a dense "
             "head and a "
             "second pass over QK for the block mass (n^2*D FLOP), a sort of (n/block)^2 and a few device "
             "synchronisations",
     .full_budget =
         R"({"pattern_threshold": 1.0, "queryaware_threshold": 0.0, "min_budget": 1, "block_size": 32})",
     .knob = "pattern_threshold",
     .knob_values = {0.3, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0},
     .test_params = R"({"min_budget": 32, "block_size": 32, "queryaware_threshold": 0.2})"})

}  // namespace prefill
