#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "core/model/chat_template.h"
#include "core/run/workload.h"

namespace prefill {
namespace {

class PromptWorkload final : public Workload {
 public:
  PromptWorkload(Model& model, const Tokenizer& tokenizer, std::unique_ptr<Task> task, bool chat,
                 std::string folder, int64_t count)
      : model_(model),
        tokenizer_(tokenizer),
        task_(std::move(task)),
        chat_(chat),
        folder_(std::move(folder)),
        size_(std::min(count, task_->size())) {
    for (int32_t id : model.eos_ids()) stop_.insert(id);
    for (int32_t id : tokenizer.eos_ids()) stop_.insert(id);
  }

  int64_t size() const override { return size_; }
  std::string sample_id(int64_t index) const override { return task_->sample_id(index); }
  int max_new_tokens() const override { return task_->max_new_tokens(); }

  int64_t prepare(int64_t index) override {
    sample_ = task_->sample(index);
    // A chat template brings its own special tokens.
    ids_ = chat_ ? tokenizer_.encode(apply_chat_template(folder_, "", sample_.prompt), false)
                 : tokenizer_.encode(sample_.prompt);
    if (ids_.empty()) throw InputError(str("sample ", sample_.id, " has an empty prompt"));
    if (int64_t(ids_.size()) + task_->max_new_tokens() > model_.max_tokens())
      throw Unsupported(str("sample ", sample_.id, " has ", ids_.size(), " tokens and may add ",
                            task_->max_new_tokens(), ", the model's context ends at ", model_.max_tokens()));
    return int64_t(ids_.size());
  }

  void prefill(AttentionHook& hook) override {
    model_.reset();
    // Reading the winner on the host is what ends the clock on every device.
    next_ = winner(model_.prefill(ids_, hook, Logits::last));
  }

  Answered finish() override {
    std::vector<int32_t> out;
    for (int32_t id = next_; int(out.size()) < task_->max_new_tokens() && !stop_.count(id);
         id = winner(model_.decode(id))) {
      out.push_back(id);
      if (int(out.size()) == task_->max_new_tokens()) break;
    }
    Answered v;
    v.prediction = tokenizer_.decode(out);
    v.score = task_->score(sample_, v.prediction);
    v.answer = sample_.answer;
    if (sample_.record.is_object() && sample_.record.value("truncated", false))
      v.cut_from = sample_.record.value("original_tokens", int64_t{0});
    return v;
  }

 private:
  static int32_t winner(const at::Tensor& logits) {
    const auto [best, id] = logits.view({-1}).max(0);
    if (!std::isfinite(best.item<float>())) throw std::runtime_error("the logits are not finite");
    return int32_t(id.item<int64_t>());
  }

  Model& model_;
  const Tokenizer& tokenizer_;
  std::unique_ptr<Task> task_;
  bool chat_;
  std::string folder_;
  int64_t size_;
  std::set<int32_t> stop_;
  Sample sample_;
  std::vector<int32_t> ids_;
  int32_t next_ = 0;
};

}  // namespace

std::unique_ptr<Workload> make_prompt_workload(Model& model, const Tokenizer& tokenizer,
                                               std::unique_ptr<Task> task, bool chat, std::string folder,
                                               int64_t count) {
  return std::make_unique<PromptWorkload>(model, tokenizer, std::move(task), chat, std::move(folder), count);
}

}  // namespace prefill
