// MInference's offline search: of a few patterns, each head gets the one that keeps most of its attention.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/text.h"
#include "core/calibrate.h"
#include "methods/parts/minference_patterns.h"

namespace prefill {
namespace {

struct SearchParams {
  double scale = 0, density = 0;
  int64_t skip = 2500;
  std::string semantics = "intended";
  template <class V>
  void fields(V& v) {
    v("scale", scale, at_least(0),
      "multiplies the published candidate sizes, which were searched at 30,000 tokens; 0: tokens of the "
      "first prompt / 30,000");
    v("density", density, in(0, 1),
      "above 0: every candidate is scaled until it computes this share of the causal pairs (equal cost); 0: "
      "sizes by `scale`");
    v("skip", skip, at_least(0), "first queries that do not count; at most half of the prompt");
    v("semantics", semantics, one_of({"released", "intended"}),
      "released: an A-shape winner is written as vertical_and_slash of the same sizes, as the authors' "
      "search does");
  }
  std::string invalid() const { return scale > 0 && density > 0 ? "give scale or density, not both" : ""; }
};

class SearchPatterns final : public Calibrator {
 public:
  using Params = SearchParams;
  SearchPatterns(Params p, MethodEnv env)
      : params_(std::move(p)),
        env_(std::move(env)),
        mass_(kCandidates.size(), std::vector<double>(size_t(env_.model.layers * env_.model.q_heads), 0)) {}

  void see(const LayerContext& c, int) override {
    if (sizes_.empty()) choose_sizes(c);
    AttendOptions options;
    options.lse = true;
    const int64_t skip = std::min(params_.skip, c.seq_len / 2);
    const at::Tensor all =
        c.backend.attend(c.qkv, AttentionPlan::uniform(c.qkv.q_heads(), {Route::dense, 0}), options).lse;
    for (size_t k = 0; k < sizes_.size(); ++k) {
      const AttentionPlan plan = plan_of(c, sizes_[k]);
      const at::Tensor kept = c.backend.attend(c.qkv, plan, options).lse;
      const at::Tensor share = (kept - all).exp().slice(1, skip).mean(-1, false, at::kDouble).to(at::kCPU);
      for (int h = 0; h < c.qkv.q_heads(); ++h)
        mass_[k][size_t(c.layer * env_.model.q_heads + h)] += share[h].item<double>();
    }
  }

  Result finish(int prompts) override {
    const int layers = env_.model.layers, heads = env_.model.q_heads;
    std::vector<std::vector<HeadPattern>> best(static_cast<size_t>(layers),
                                               std::vector<HeadPattern>(static_cast<size_t>(heads)));
    std::vector<int> wins(sizes_.size(), 0);
    double total = 0;
    for (int i = 0; i < layers * heads; ++i) {
      size_t winner = 0;  // an earlier candidate wins a tie
      for (size_t k = 1; k < sizes_.size(); ++k)
        if (mass_[k][size_t(i)] > mass_[winner][size_t(i)]) winner = k;
      HeadPattern p = sizes_[winner];
      p.score = mass_[winner][size_t(i)] / prompts;
      if (params_.semantics == "released") p.kind = HeadPattern::vertical_slash;
      best[size_t(i / heads)][size_t(i % heads)] = p;
      ++wins[winner];
      total += p.score;
    }
    nlohmann::json summary = {{"mean_recall", total / (layers * heads)},
                              {"winners", nlohmann::json::array()}};
    for (size_t k = 0; k < sizes_.size(); ++k)
      summary["winners"].push_back({{"pattern", pattern_name(sizes_[k].kind)},
                                    {"sizes", {sizes_[k].first, sizes_[k].second}},
                                    {"heads", wins[k]}});
    return {write_head_patterns(best), summary};
  }

 private:
  AttentionPlan plan_of(const LayerContext& c, const HeadPattern& p) const {
    const bool stream = p.kind == HeadPattern::stream;
    // The search forces 30 distances where the run-time code forces 100.
    const nlohmann::json params =
        stream ? nlohmann::json{{"sink", p.first}, {"local", std::max<int64_t>(1, p.second)}}
               : nlohmann::json{{"vertical", p.first}, {"slash", p.second}, {"forced_distances", 30}};
    const auto method = make_method(stream ? "streaming" : "minference", params, env_);
    const auto state = method->begin_prompt(c.seq_len);
    return method->plan(c, *state);
  }

  double mean_density(const LayerContext& c, const HeadPattern& p) const {
    const auto shares = density(plan_of(c, p), c.seq_len);
    return std::accumulate(shares.begin(), shares.end(), 0.0) / double(shares.size());
  }

  static HeadPattern scaled(const HeadPattern& p, double by) {
    return {p.kind, std::llround(double(p.first) * by),
            std::max<int64_t>(1, std::llround(double(p.second) * by)), 0};
  }

  /// Candidate sizes, by the first layer of the first prompt.
  void choose_sizes(const LayerContext& c) {
    const double by_length = params_.scale > 0 ? params_.scale : double(c.seq_len) / 30000;
    for (const HeadPattern& p : kCandidates) {
      if (params_.density == 0) {
        sizes_.push_back(scaled(p, by_length));
        continue;
      }
      double low = 0, high = double(c.seq_len) / double(std::max<int64_t>(1, p.second));
      for (int step = 0; step < 14; ++step) {
        const double middle = (low + high) / 2;
        (mean_density(c, scaled(p, middle)) > params_.density ? high : low) = middle;
      }
      if (const double least = mean_density(c, scaled(p, 0)); least > params_.density)
        throw InputError(str("density=", params_.density, " is out of reach: on a prompt of ", c.seq_len,
                             " tokens ", pattern_name(p.kind), " computes ",
                             number_text(std::ceil(least * 1000) / 1000),
                             " of the causal pairs even with the columns and distances alone that it always "
                             "takes; ask for more, or give longer prompts"));
      sizes_.push_back(scaled(p, low));
    }
  }

  /// The published search space, in its order (block-sparse left out: no published file contains it).
  static inline const std::vector<HeadPattern> kCandidates = {{HeadPattern::stream, 100, 800, 0},
                                                              {HeadPattern::vertical_slash, 30, 800, 0},
                                                              {HeadPattern::vertical_slash, 100, 750, 0},
                                                              {HeadPattern::vertical_slash, 500, 700, 0},
                                                              {HeadPattern::vertical_slash, 3500, 100, 0}};
  Params params_;
  MethodEnv env_;
  std::vector<HeadPattern> sizes_;
  std::vector<std::vector<double>> mass_;  // [candidates][layers*heads], over prompts
};

const RegisterCalibrator<SearchPatterns> search_patterns_entry(
    {.name = "minference",
     .doc = "search every head's pattern: the candidate that keeps most of its attention",
     .field = "pattern_file"},
    __FILE__);

}  // namespace
}  // namespace prefill
