// What the runner sees of a task: prepare a sample, prefill it (timed, repeatable), finish it (decode and
// score).
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "core/engine.h"
#include "core/model/model.h"
#include "core/run/experiment.h"
#include "core/task.h"
#include "core/text/tokenizer.h"

namespace prefill {

struct Answered {
  Score score;
  std::string prediction;
  nlohmann::json answer;
  nlohmann::json details;  ///< what the score sums up (see results/README.md); null: nothing more
  int64_t cut_from = 0;    ///< tokens of the prompt before its middle was cut out; 0: it was not
};

class Workload {
 public:
  virtual ~Workload() = default;
  virtual int64_t size() const = 0;
  virtual std::string sample_id(int64_t index) const = 0;
  virtual int64_t prepare(int64_t index) = 0;  ///< untimed; -> prompt length in tokens
  virtual void prefill(AttentionHook&) = 0;    ///< timed: from token ids to the first logits on the host
  virtual Answered finish() = 0;               ///< untimed by TTFT: greedy decode on the KV cache, score
  virtual int max_new_tokens() const = 0;
};

/// A text task through a model. `chat` wraps every prompt in the model's chat template as one user message.
std::unique_ptr<Workload> make_prompt_workload(Model&, const Tokenizer&, std::unique_ptr<Task>, bool chat,
                                               std::string model_folder, int64_t count);

/// A text whose every token is given (Reading::likelihood, Reading::agreement). The timed prefill ends with
/// the last token's logits, as everywhere, but the last layer is computed for all tokens. Agreement prefills
/// every sample once more with dense attention on `backend`, untimed. The backend must outlive the workload.
std::unique_ptr<Workload> make_teacher_forced_workload(Model&, const Tokenizer&, std::unique_ptr<Task>,
                                                       const KernelBackend& backend, int64_t count);

}  // namespace prefill
