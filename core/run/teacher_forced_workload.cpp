// Texts under teacher forcing: how well the model predicts every next token, and how near it stays to dense
// attention.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/run/workload.h"

namespace prefill {
namespace {

using nlohmann::json;

constexpr int64_t kFirstBucket = 512;  // then doubling: [0, 512), [512, 1024), [1024, 2048), ...
constexpr int64_t kRows = 256;         // positions whose logits are in memory at a time

/// Sums over positions. A position is the index of the last token read, from 0; the next one is predicted
/// there.
struct Sums {
  int64_t n = 0;
  double nll = 0, dense_nll = 0, top1 = 0, kl = 0;
  void add(const Sums& o) { n += o.n, nll += o.nll, dense_nll += o.dense_nll, top1 += o.top1, kl += o.kl; }
};

class TeacherForcedWorkload final : public Workload {
 public:
  TeacherForcedWorkload(Model& model, const Tokenizer& tokenizer, std::unique_ptr<Task> task,
                        const KernelBackend& backend, int64_t count)
      : model_(model),
        tokenizer_(tokenizer),
        task_(std::move(task)),
        backend_(backend),
        size_(std::min(count, task_->size())),
        agreement_(task_->reading() == Reading::agreement) {
    if (agreement_) dense_ = make_method("dense", json::object(), model.method_env());
  }

  int64_t size() const override { return size_; }
  std::string sample_id(int64_t index) const override { return task_->sample_id(index); }
  int max_new_tokens() const override { return 0; }

  int64_t prepare(int64_t index) override {
    const Sample sample = task_->sample(index);
    ids_ = tokenizer_.encode(sample.prompt);
    if (sample.tokens > 0 && sample.tokens < int64_t(ids_.size())) ids_.resize(size_t(sample.tokens));
    const auto n = int64_t(ids_.size());
    if (n < 2)
      throw InputError(
          str("sample ", sample.id, " has ", n, " tokens: at least two are needed to predict one"));
    if (n > model_.max_tokens())
      throw Unsupported(str("sample ", sample.id, " has ", n, " tokens, the model's context ends at ",
                            model_.max_tokens()));
    if (agreement_) {
      reference_.reset();
      const auto clock = backend_.make_clock();
      AttentionEngine engine(*dense_, backend_, *clock, n);
      model_.reset();
      reference_ = model_.prefill_hidden(ids_, engine);
    }
    return n;
  }

  void prefill(AttentionHook& hook) override {
    model_.reset();
    hidden_.reset();
    hidden_ = model_.prefill_hidden(ids_, hook);
    // Reading logits on the host is what ends the clock on every device.
    require_finite(model_.logits(hidden_.slice(0, hidden_.size(0) - 1)).max().item<double>());
  }

  Answered finish() override {
    const at::NoGradGuard no_grad;
    const at::Tensor next =
        at::tensor(std::vector<int32_t>(ids_.begin() + 1, ids_.end()), at::kLong).to(hidden_.device());
    const int64_t n = next.size(0);
    Sums all;
    json positions = json::array();
    int64_t bucket_end = kFirstBucket;
    for (int64_t from = 0; from < n; from = bucket_end, bucket_end *= 2) {
      const int64_t to = std::min(bucket_end, n);
      Sums bucket;
      for (int64_t row = from; row < to; row += kRows)
        bucket.add(measure(row, std::min(row + kRows, to), next));
      positions.push_back(means(bucket));
      positions.back()["from"] = from;
      positions.back()["to"] = to;
      all.add(bucket);
    }
    Answered v;
    v.details = means(all);
    v.details["positions"] = positions;
    require_finite(all.nll + all.kl);
    v.score.value = agreement_ ? all.top1 / double(all.n) : std::exp(-all.nll / double(all.n));
    v.score.metric = agreement_ ? "top-1 agreement with dense" : "1/perplexity";
    return v;
  }

 private:
  static void require_finite(double x) {
    if (!std::isfinite(x)) throw std::runtime_error("the logits are not finite");
  }

  Sums measure(int64_t row, int64_t end, const at::Tensor& next) const {
    auto log_probabilities = [&](const at::Tensor& hidden) {
      return model_.logits(hidden.slice(0, row, end)).log_softmax(-1);
    };
    const at::Tensor index = next.slice(0, row, end).unsqueeze(1);
    auto nll_of = [&](const at::Tensor& log_p) {
      return -log_p.gather(1, index).sum(at::kDouble).item<double>();
    };
    const at::Tensor ours = log_probabilities(hidden_);
    Sums s;
    s.n = end - row;
    s.nll = nll_of(ours);
    if (!agreement_) return s;
    const at::Tensor dense = log_probabilities(reference_);
    s.dense_nll = nll_of(dense);
    s.top1 = double((ours.argmax(-1) == dense.argmax(-1)).sum().item<int64_t>());
    s.kl = (dense.exp() * (dense - ours)).sum(at::kDouble).item<double>();
    return s;
  }

  json means(const Sums& s) const {
    const auto n = double(s.n);
    json out{{"n", s.n}, {"nll", s.nll / n}};
    if (agreement_) out.update({{"dense_nll", s.dense_nll / n}, {"top1", s.top1 / n}, {"kl", s.kl / n}});
    return out;
  }

  Model& model_;
  const Tokenizer& tokenizer_;
  std::unique_ptr<Task> task_;
  const KernelBackend& backend_;
  int64_t size_;
  bool agreement_;
  std::unique_ptr<Method> dense_;
  std::vector<int32_t> ids_;
  at::Tensor hidden_, reference_;  // [n, hidden], on the device
};

}  // namespace

std::unique_ptr<Workload> make_teacher_forced_workload(Model& model, const Tokenizer& tokenizer,
                                                       std::unique_ptr<Task> task,
                                                       const KernelBackend& backend, int64_t count) {
  return std::make_unique<TeacherForcedWorkload>(model, tokenizer, std::move(task), backend, count);
}

}  // namespace prefill
