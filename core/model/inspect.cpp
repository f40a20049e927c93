#include "core/model/inspect.h"

#include <c10/util/accumulate.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/chat_template.h"
#include "core/model/checkpoint.h"
#include "core/model/config.h"
#include "core/model/model_tokenizer.h"

namespace prefill {
namespace {

std::string size_text(uint64_t bytes) {
  return bytes < (1ull << 30) ? fmt::format("{:.0f} MiB", double(bytes) / (1 << 20))
                              : fmt::format("{:.1f} GiB", double(bytes) / (1 << 30));
}

class Inspection {
 public:
  Inspection(const std::string& folder, uint64_t read_up_to) : folder_(folder), read_up_to_(read_up_to) {
    // each step needs what the ones before it found; a step that fails leaves a finding and the independent
    // ones go on
    const bool config_ok = step("config", [&] { config(); });
    const bool files_ok = step("weights", [&] { files(); });
    if (config_ok && files_ok && !config_.random_weights()) step("tensors", [&] { tensors(); });
    step("tokenizer", [&] { tokenizer(); });
    step(
        "chat template",
        [&] {
          apply_chat_template(folder_, "", "text");
          add(ModelFinding::ok, "chat template", "understood");
        },
        ModelFinding::warning);
    if (config_ok) memory();
  }
  std::vector<ModelFinding> findings;

 private:
  void add(ModelFinding::Level level, std::string what, std::string detail) {
    findings.push_back({level, std::move(what), std::move(detail)});
  }
  bool step(const char* what, const std::function<void()>& check,
            ModelFinding::Level on_failure = ModelFinding::error) {
    try {
      check();
      return true;
    } catch (const std::exception&
                 e) {  // the folder's content may break any reader: whatever it was is the finding
      add(on_failure, what, e.what());
      return false;
    }
  }

  void config() {
    config_ = read_model_config(folder_);
    add(ModelFinding::ok, "config",
        fmt::format(
            "{}, {} layers, {} query and {} key/value heads of {}, vocabulary {}, RoPE {} (theta {}), {}",
            config_.family, config_.layers, config_.q_heads, config_.kv_heads, config_.head_dim,
            config_.vocab, config_.rope.type, number_text(config_.rope.theta),
            config_.tied ? "tied embeddings" : "own output head"));
    add(ModelFinding::ok, "context",
        fmt::format("{} tokens ({})", config_.context_length(), config_.context_limit()));
    if (config_.sliding_window > 0)
      add(ModelFinding::warning, "context",
          fmt::format("sliding_window {}: longer prompts are refused, since attention past a sliding window "
                      "is not supported",
                      config_.sliding_window));
    if (config_.eos.empty())
      add(ModelFinding::warning, "config", "no eos_token_id: answers end at the token limit only");
  }

  void files() {
    if (config_.random_weights()) {
      add(ModelFinding::warning, "weights",
          fmt::format("random (seed {}): times can be measured, answers mean nothing", config_.random_seed));
      return;
    }
    checkpoint_ = Checkpoint::open(folder_);
    add(ModelFinding::ok, "weights",
        fmt::format("{} in {} file{}", size_text(checkpoint_.data_bytes()), checkpoint_.files().size(),
                    checkpoint_.files().size() == 1 ? "" : "s"));
  }

  using Tensors = std::vector<std::pair<std::string, std::vector<int64_t>>>;

  /// Runs `check` on each tensor; ten failures are findings, the others are counted as `more`. -> none failed
  bool each(const Tensors& all, const char* more,
            const std::function<void(const std::string& name, const std::vector<int64_t>& shape)>& check) {
    size_t wrong = 0;
    for (const auto& [name, shape] : all) {
      try {
        check(name, shape);
      } catch (const InputError& e) {
        if (++wrong <= 10) add(ModelFinding::error, "tensors", e.what());
      }
    }
    if (wrong > 10) add(ModelFinding::error, "tensors", fmt::format("{} more {}", wrong - 10, more));
    return wrong == 0;
  }

  void tensors() {
    std::map<std::string, int> dtypes;
    const Tensors expected = expected_tensors(config_);
    if (!each(expected, "missing or misshaped tensors", [&](const auto& name, const auto& shape) {
          checkpoint_.require(name, shape);
          ++dtypes[checkpoint_.entry(name).dtype_name];
        }))
      return;
    refuse_unused_tensors(config_, checkpoint_);
    std::string kinds;
    for (const auto& [dtype, count] : dtypes)
      kinds += fmt::format("{}{} {}", kinds.empty() ? "" : ", ", count, dtype);
    add(ModelFinding::ok, "tensors",
        fmt::format("all {} present with the right shapes ({})", expected.size(), kinds));
    values(expected);
  }

  void values(const Tensors& expected) {
    if (checkpoint_.data_bytes() > read_up_to_)
      return add(ModelFinding::warning, "tensors",
                 fmt::format("not read for NaN and infinity: {} are more than {}; --full reads them",
                             size_text(checkpoint_.data_bytes()), size_text(read_up_to_)));
    // Views of a file that is mapped: one tensor's pages at a time, which the system drops as it needs to.
    if (each(expected, "tensors with NaN or infinity", [&](const auto& name, const auto& shape) {
          refuse_not_finite(checkpoint_.tensor(name, shape), name, checkpoint_.file_of(name));
        }))
      add(ModelFinding::ok, "tensors", "every value is finite");
  }

  void tokenizer() {
    const auto t = load_tokenizer(folder_);
    add(ModelFinding::ok, "tokenizer", fmt::format("{}, {} ids", t->kind(), t->vocab_size()));
    if (config_.vocab == 0) return;  // no config was read
    if (const std::string misfit = tokenizer_misfit(*t, config_); !misfit.empty())
      add(ModelFinding::error, "tokenizer", misfit);
  }

  void memory() {
    uint64_t weights = 0;
    for (const auto& [name, shape] : expected_tensors(config_))
      weights += uint64_t(c10::multiply_integers(shape));
    std::string line;
    const int64_t context = config_.context_length();
    for (int64_t n : {std::min<int64_t>(4096, context), int64_t(16384), int64_t(65536), int64_t(131072)}) {
      if (n > context) break;
      const auto bytes = [&](int item) {
        return size_text(prefill_bytes(weights, config_.layers, config_.hidden, config_.q_heads,
                                       config_.kv_heads, config_.head_dim, n, item));
      };
      line += fmt::format("{}{} {} (float32 {})", line.empty() ? "" : ", ",
                          n % 1024 == 0 ? fmt::format("{}K", n / 1024) : fmt::format("{} tokens", n),
                          bytes(2), bytes(4));
    }
    add(ModelFinding::ok, "memory", "of a prefill in 16-bit, estimated: " + line);
  }

  std::string folder_;
  uint64_t read_up_to_;
  ModelConfig config_;
  Checkpoint checkpoint_;
};

}  // namespace

uint64_t prefill_bytes(uint64_t weight_count, int64_t layers, int64_t hidden, int64_t q_heads,
                       int64_t kv_heads, int64_t head_dim, int64_t tokens, int item_bytes) {
  const auto n = uint64_t(tokens), item = uint64_t(item_bytes);
  const auto cache = uint64_t(2 * layers * kv_heads * head_dim),
             queries_and_output = uint64_t(2 * q_heads * head_dim);
  return (weight_count + n * (cache + queries_and_output)) * item +
         n * uint64_t(hidden) * 4;  // residual: float32
}

std::vector<ModelFinding> check_model_folder(const std::string& folder, uint64_t read_up_to) {
  return std::move(Inspection(folder, read_up_to).findings);
}

}  // namespace prefill
