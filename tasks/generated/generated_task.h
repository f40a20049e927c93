// What the generated tasks share: stratified depths, exact length, official scoring.
#pragma once
#include <optional>
#include <string>

#include "core/task.h"
#include "tasks/generated/rng.h"
#include "tasks/scoring/scorer.h"

namespace prefill {

/// A task that writes its own samples. A subclass says how a prompt of so many units is built; this class
/// finds the number of units (and a padding sentence at the start of the context) that make exactly
/// request.tokens tokens.
class GeneratedTask : public Task {
 public:
  struct Draft {
    nlohmann::json record;  ///< context, input, answer, options, depth and what else the task wants known
    std::string prompt;
  };

  int64_t size() const override { return request_.count; }
  int max_new_tokens() const override { return max_new_tokens_; }
  /// Throws InputError when the index is out of range, when there is no tokenizer, or when the length is too
  /// small.
  Sample sample(int64_t index) const final;
  Score score(const Sample& sample, const std::string& prediction) const override;

 protected:
  /// `scored_as`: name of the scorer. `max_new_tokens`: the published limit; `override_limit` > 0 wins.
  /// `fixed_units` > 0: the published size by construction; request.tokens is then not looked at.
  GeneratedTask(std::string name, const std::string& scored_as, const TaskRequest& request,
                int max_new_tokens, int override_limit, int64_t fixed_units);

  /// Same arguments, same bytes. `padding` is "" or one sentence that belongs at the start of the context.
  virtual Draft build(int64_t index, int64_t units, const std::string& padding) const = 0;
  virtual int64_t min_units() const { return 0; }

  /// The generator of sample `index`.
  Rng rng(int64_t index) const { return Rng(request_.seed, name_, uint64_t(index)); }
  /// Depth of the needle in 0..1: one of `count` equal strata each, jittered inside it.
  double depth(int64_t index) const;
  int64_t count() const { return request_.count; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  TaskRequest request_;
  scoring::Scorer scorer_;
  int max_new_tokens_;
  int64_t fixed_units_;
};

/// "" or the padding and what separates it from the context.
inline std::string padded(const std::string& padding, const char* separator) {
  return padding.empty() ? padding : padding + separator;
}

/// A random uuid, version 4, in lower case.
std::string random_uuid(Rng& rng);

}  // namespace prefill
