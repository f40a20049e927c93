// A task: text in, text out. It knows no model and no method.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/config/fields.h"
#include "core/registry.h"
#include "core/text/tokenizer.h"

namespace prefill {

/// One example. `record` has InfiniteBench's fields (id, context, input, answer, options); `prompt` is what
/// the model reads (before any chat template).
struct Sample {
  std::string id;
  std::string prompt;
  nlohmann::json record;
  nlohmann::json answer;  ///< goes unchanged into ground_truth
  int64_t tokens = 0;     ///< of the prompt, special tokens included, after truncation
};

struct Score {
  double value = 0;    ///< 0..1, higher is better
  std::string metric;  ///< "exact digits", "rougeLsum", ...
  std::string error;   ///< the profile would have raised: why; value is 0 then
};

/// How a sample is measured.
enum class Reading {
  answer,      ///< the model's greedy answer, scored by the task
  likelihood,  ///< teacher forcing: how probable the sample's own tokens are to the model
  agreement,   ///< teacher forcing: how near every next-token distribution is to that of dense attention
};

/// What a task is asked for.
struct TaskRequest {
  int64_t tokens = 4096;  ///< exact prompt length of generated tasks; limit for tasks from files
  int64_t count = 5;
  uint64_t seed = 1;
  std::string profile = "official";  ///< scoring profile
  const Tokenizer* tokenizer = nullptr;
};

class Task {
 public:
  virtual ~Task() = default;
  virtual int64_t size() const = 0;
  /// Names the sample in the results; told without making it. sample(index).id is the same.
  virtual std::string sample_id(int64_t index) const { return std::to_string(index); }
  virtual Sample sample(int64_t index) const = 0;  ///< same index, same bytes
  virtual int max_new_tokens() const = 0;
  virtual Reading reading() const { return Reading::answer; }
  /// Of an answer; a task that is read otherwise throws InputError.
  virtual Score score(const Sample&, const std::string& prediction) const = 0;
  /// Where the samples come from (file, its SHA-256, n, ...); null when they are made here from params and
  /// seed.
  virtual nlohmann::json provenance() const { return nullptr; }
};

struct TaskInfo {
  std::string name = {}, doc = {}, source = {}, file = {};
  int version = 1;
  bool generated = false;              ///< `generate` can write it
  std::vector<FieldInfo> schema = {};  ///< the task's own params
  std::function<ParamsHandle(const std::vector<const Located*>& layers, const std::string& file,
                             const std::string& base_folder, Diagnostics&)>
      read = {};
  std::function<std::unique_ptr<Task>(const ParamsHandle&, const TaskRequest&)> make = {};
};
Registry<TaskInfo>& tasks();

/// Registers a task class T(Params, TaskRequest) with nested type Params. One line per task at the end of its
/// file.
template <class T>
struct RegisterTask {
  RegisterTask(TaskInfo about, const char* file) {
    using P = typename T::Params;
    about.file = file;
    about.schema = schema_of<P>();
    about.read = [name = about.name](const std::vector<const Located*>& layers, const std::string& yaml,
                                     const std::string& base, Diagnostics& d) {
      auto p = std::make_shared<P>(read_params<P>(layers, name, yaml, base, d));
      return ParamsHandle{to_canonical(*p), p->invalid(), p};
    };
    about.make = [](const ParamsHandle& h, const TaskRequest& r) -> std::unique_ptr<Task> {
      return std::make_unique<T>(*std::static_pointer_cast<P>(h.value), r);
    };
    tasks().add(std::move(about));
  }
};

}  // namespace prefill
