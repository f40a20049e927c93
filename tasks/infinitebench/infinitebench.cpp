// The twelve tasks of InfiniteBench (Zhang et al. 2024), read from the official JSONL files.
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/text.h"
#include "core/task.h"
#include "tasks/infinitebench/dataset.h"
#include "tasks/infinitebench/templates.h"
#include "tasks/scoring/scorer.h"
#include "tasks/truncate.h"

namespace prefill::infinitebench {
namespace {

struct Spec {
  const char *name, *doc;
  int max_new_tokens;  // of the official YaRN-Mistral runner
};
constexpr Spec specs[] = {
    {"passkey", "Retrieve.PassKey: five digits in noise", 6},
    {"number_string", "Retrieve.Number: ten digits with repeats in noise", 12},
    {"kv_retrieval", "Retrieve.KV: the value of one uuid key", 50},
    {"longbook_sum_eng", "En.Sum: summary of a novel", 1200},
    {"longbook_choice_eng", "En.MC: multiple choice about a novel", 40},
    {"longbook_qa_eng", "En.QA: question about a novel", 40},
    {"longbook_qa_chn", "Zh.QA: question about a Chinese book", 40},
    {"longdialogue_qa_eng", "En.Dia: masked name in a script", 40},
    {"math_find", "Math.Find: order statistic of a list", 3},
    {"math_calc", "Math.Calc: running values of an expression", 30000},
    {"code_run", "Code.Run: value of a chain of calls", 5},
    {"code_debug", "Code.Debug: the function with a planted error", 5},
};

struct FileParams {
  Path folder, templates;
  int64_t limit = 0;
  std::string sampling = "first", truncation = "floor-floor";
  bool reserve_answer = false;
  int64_t max_tokens = 0;
  int max_new_tokens = 0;
  template <class V>
  void fields(V& v) {
    v("folder", folder, any(),
      "folder with InfiniteBench's JSONL files; empty: the environment variable PREFILLBENCH_INFINITEBENCH");
    v("templates", templates, any(),
      "prompt templates written by scripts/import_infinitebench.py; empty: the project's own wording");
    v("limit", limit, at_least(0), "samples at most; 0: the run's count");
    v("sampling", sampling, one_of({"first", "by-length"}),
      "which rows when limited: the first, or one of each stratum by length");
    v("max_tokens", max_tokens, at_least(0),
      "tokens of a prompt at most; longer ones lose their middle; 0: the run's tokens");
    v("truncation", truncation, one_of({"floor-floor", "floor-ceil", "refuse"}),
      "halves kept of an over-long prompt: floor(L/2) each (most runners), floor and ceil (official GPT-4 "
      "runner), or an error instead");
    v("reserve_answer", reserve_answer, any(),
      "take the answer's tokens off the limit (MInference, SharePrefill)");
    v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: the official one of the task");
  }
  std::string invalid() const { return ""; }
};

std::string folder_of(const FileParams& p) {
  if (!p.folder.text.empty()) return p.folder.text;
  if (const char* env = std::getenv("PREFILLBENCH_INFINITEBENCH"); env && *env) return env;
  throw Unsupported(
      "InfiniteBench's files are not part of this project: set the task's folder, or "
      "PREFILLBENCH_INFINITEBENCH, "
      "to the folder that holds passkey.jsonl and the others");
}

class FileTask : public Task {
 public:
  using Params = FileParams;

  int64_t size() const override { return int64_t(rows_.size()); }
  int max_new_tokens() const override { return max_new_tokens_; }
  /// The line index, as the runners write it: the data's own ids repeat and differ by revision.
  std::string sample_id(int64_t index) const override { return std::to_string(rows_.at(size_t(index))); }

  Sample sample(int64_t index) const override {
    if (index < 0 || index >= size())
      throw InputError(str(name_, ": there is no sample ", index, "; there are ", size()));
    const int64_t row_index = rows_[size_t(index)];
    const std::string place = data_.place(row_index);
    Sample s;
    s.record = data_.row(row_index);
    s.id = sample_id(index);
    s.prompt = make_prompt(name_, s.record, template_, place);
    if (!s.record.contains("context") && s.record.contains("content"))
      s.record["context"] = s.record["content"];
    try {
      s.answer = label_of(name_, s.record, place);
    } catch (
        const InputError& e) {  // one bad label must not end a run: the sample is scored 0, with the reason
      s.record["label_error"] = e.what();
    }
    if (tokenizer_) {
      Truncated t = truncate_middle(s.prompt, limit_, *tokenizer_, params_.truncation == "floor-ceil");
      if (t.cut && params_.truncation == "refuse")
        throw Unsupported(
            str(place, ": the prompt has ", t.original_tokens, " tokens, the limit is ", limit_));
      s.tokens = t.tokens;
      s.record["original_tokens"] = t.original_tokens;
      s.record["truncated"] = t.cut;
      s.prompt = std::move(t.text);
    }
    return s;
  }

  Score score(const Sample& sample, const std::string& prediction) const override {
    if (sample.record.contains("label_error")) {
      Score out;
      out.metric = scorer_.metric();
      out.error = sample.record["label_error"];
      return out;
    }
    return scorer_.score(prediction, sample.answer);
  }

  nlohmann::json provenance() const override {
    nlohmann::json out{{"file", std::filesystem::path(data_.path()).filename().string()},
                       {"sha256", sha256_file(data_.path())},
                       {"n", data_.size()}};
    out["templates"] = params_.templates.text.empty()
                           ? nlohmann::json("own")
                           : nlohmann::json{{"sha256", sha256_file(params_.templates.text)}};
    out["truncation"] = params_.truncation;
    out["limit"] = limit_;
    return out;
  }

 protected:
  FileTask(const Spec& spec, const Params& p, const TaskRequest& r)
      : name_(spec.name),
        params_(p),
        data_((std::filesystem::path(folder_of(p)) / (name_ + ".jsonl")).string()),
        rows_(choose_rows(data_, p.limit > 0 ? p.limit : r.count, p.sampling, r.seed)),
        scorer_(name_, r.profile),
        tokenizer_(r.tokenizer),
        max_new_tokens_(p.max_new_tokens > 0 ? p.max_new_tokens : spec.max_new_tokens),
        limit_((p.max_tokens > 0 ? p.max_tokens : r.tokens) - (p.reserve_answer ? max_new_tokens_ : 0)) {
    if (limit_ < 2)
      throw InputError(
          str(name_, ": no room for a prompt: the limit of ", limit_, " tokens must be at least 2"));
    const auto templates = p.templates.text.empty() ? own_templates() : read_templates(p.templates.text);
    const auto it = templates.find(name_);
    if (it == templates.end()) throw InputError(str(p.templates.text, ": has no template of ", name_));
    template_ = it->second;
  }

 private:
  std::string name_, template_;
  Params params_;
  Dataset data_;
  std::vector<int64_t> rows_;
  scoring::Scorer scorer_;
  const Tokenizer* tokenizer_;
  int max_new_tokens_;
  int64_t limit_;
};

template <int I>
struct Numbered : FileTask {
  Numbered(const Params& p, const TaskRequest& r) : FileTask(specs[I], p, r) {}
};
template <int... I>
void register_all(std::integer_sequence<int, I...>) {
  (RegisterTask<Numbered<I>>({.name = str("infinitebench/", specs[I].name),
                              .doc = specs[I].doc,
                              .source = "OpenBMB/InfiniteBench 88b3daa; data xinrongzhang2022/InfiniteBench"},
                             __FILE__),
   ...);
}
const bool registered_infinitebench = (register_all(std::make_integer_sequence<int, 12>()), true);

}  // namespace
}  // namespace prefill::infinitebench
