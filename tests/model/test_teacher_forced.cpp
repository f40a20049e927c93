// Perplexity and agreement against plain loops over whole logits in double precision.
#include <gtest/gtest.h>

#include <cmath>

#include "core/run/workload.h"
#include "tests/model/helpers.h"

namespace prefill {
namespace {

/// Ids spelled out as text, "12 7 99": what the workload reads back is known without a real tokenizer.
class SpelledIds final : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    std::istringstream in{std::string(text)};
    std::vector<int32_t> out;
    for (int32_t id; in >> id;) out.push_back(id);
    return out;
  }
  std::string decode(const std::vector<int32_t>&, bool) const override { return ""; }
  int32_t vocab_size() const override { return 1 << 20; }
  int32_t token_id(std::string_view) const override { return -1; }
  int32_t bos_id() const override { return -1; }
  std::vector<int32_t> eos_ids() const override { return {}; }
  std::string kind() const override { return "spelled"; }
};

class OneText final : public Task {
 public:
  OneText(Reading reading, const std::vector<int32_t>& ids, int64_t tokens)
      : reading_(reading), tokens_(tokens) {
    for (int32_t id : ids) text_ += std::to_string(id) + " ";
  }
  int64_t size() const override { return 1; }
  Sample sample(int64_t) const override {
    Sample s;
    s.id = "0";
    s.prompt = text_;
    s.tokens = tokens_;
    return s;
  }
  int max_new_tokens() const override { return 0; }
  Reading reading() const override { return reading_; }
  Score score(const Sample&, const std::string&) const override { return {}; }

 private:
  Reading reading_;
  int64_t tokens_;
  std::string text_;
};

std::vector<double> probabilities(const at::Tensor& logits, int64_t row) {
  const at::Tensor line = logits[row].to(at::kDouble).contiguous();
  const double* x = line.data_ptr<double>();
  double total = 0;
  for (int64_t i = 0; i < line.numel(); ++i) total += std::exp(x[i]);
  std::vector<double> out;
  for (int64_t i = 0; i < line.numel(); ++i) out.push_back(std::exp(x[i]) / total);
  return out;
}
size_t best(const std::vector<double>& p) { return size_t(std::max_element(p.begin(), p.end()) - p.begin()); }

class TeacherForced : public testing::Test {
 protected:
  TeacherForced() : backend(backends().at("cpu-ref").make()) {
    ModelOptions options;
    options.dtype = "float32";
    options.max_tokens = 2048;  // the checkpoint says 256; its weights are random anyway
    model = load_model(fixture("llama2"), options);
    for (int64_t i = 0; i < 1400; ++i) ids.push_back(int32_t(1 + (i * i * 31 + i / 3) % 95));
  }
  Answered run(Reading reading, const std::string& method, const nlohmann::json& params, int64_t tokens) {
    const auto workload = make_teacher_forced_workload(
        *model, tokenizer, std::make_unique<OneText>(reading, ids, tokens), *backend, 1);
    EXPECT_EQ(workload->prepare(0), tokens);
    const auto made = make_method(method, params, MethodEnv{model->shape()});
    const auto clock = backend->make_clock();
    AttentionEngine engine(*made, *backend, *clock, tokens);
    workload->prefill(engine);
    return workload->finish();
  }
  at::Tensor logits(const std::string& method, const nlohmann::json& params, int64_t tokens) {
    const auto made = make_method(method, params, MethodEnv{model->shape()});
    const auto clock = backend->make_clock();
    AttentionEngine engine(*made, *backend, *clock, tokens);
    return model->prefill({ids.begin(), ids.begin() + tokens}, engine, Logits::all);
  }

  std::unique_ptr<KernelBackend> backend;
  std::unique_ptr<Model> model;
  SpelledIds tokenizer;
  std::vector<int32_t> ids;
};

const nlohmann::json narrow = {{"sink", 64}, {"local", 64}};

TEST_F(TeacherForced, PerplexityIsThatOfTheWholeLogits) {
  const int64_t n = 1301;
  const at::Tensor all = logits("streaming", narrow, n);
  std::map<int64_t, std::pair<double, int64_t>> buckets;  // by first position
  double total = 0;
  for (int64_t i = 0; i + 1 < n; ++i) {
    const double nll = -std::log(probabilities(all, i)[size_t(ids[size_t(i) + 1])]);
    auto& [sum, count] = buckets[i < 512 ? 0 : i < 1024 ? 512 : 1024];
    sum += nll, ++count, total += nll;
  }
  const Answered v = run(Reading::likelihood, "streaming", narrow, n);
  EXPECT_EQ(v.score.metric, "1/perplexity");
  EXPECT_NEAR(v.score.value, std::exp(-total / double(n - 1)), 1e-6);
  EXPECT_NEAR(v.details["nll"], total / double(n - 1), 1e-5);
  EXPECT_EQ(v.details["n"], n - 1);
  ASSERT_EQ(v.details["positions"].size(), 3u);
  for (const auto& b : v.details["positions"]) {
    const auto& [sum, count] = buckets.at(b["from"].get<int64_t>());
    EXPECT_EQ(b["n"], count);
    EXPECT_EQ(b["to"].get<int64_t>() - b["from"].get<int64_t>(), count);
    EXPECT_NEAR(b["nll"], sum / double(count), 1e-5);
  }
}

TEST_F(TeacherForced, AgreementIsThatOfTheWholeLogits) {
  const int64_t n = 700;
  const at::Tensor dense = logits("dense", {}, n), sparse = logits("streaming", narrow, n);
  double same = 0, kl = 0, kl_late = 0;
  for (int64_t i = 0; i + 1 < n; ++i) {
    const auto p = probabilities(dense, i), q = probabilities(sparse, i);
    same += best(p) == best(q);
    double here = 0;
    for (size_t t = 0; t < p.size(); ++t) here += p[t] * std::log(p[t] / q[t]);
    kl += here;
    if (i >= 512) kl_late += here;
  }
  ASSERT_LT(same, double(n - 1)) << "the methods must differ for this to test anything";
  const Answered v = run(Reading::agreement, "streaming", narrow, n);
  EXPECT_EQ(v.score.value, same / double(n - 1));
  EXPECT_NEAR(v.details["kl"], kl / double(n - 1), 1e-5);
  ASSERT_EQ(v.details["positions"].size(), 2u);
  EXPECT_NEAR(v.details["positions"][1]["kl"], kl_late / double(n - 1 - 512), 1e-5);
}

TEST_F(TeacherForced, DenseAgreesWithItself) {
  const Answered v = run(Reading::agreement, "dense", nlohmann::json::object(), 600);
  EXPECT_EQ(v.score.value, 1);
  EXPECT_EQ(v.details["kl"], 0);
  EXPECT_EQ(v.details["nll"], v.details["dense_nll"]);
  EXPECT_EQ(v.details["nll"],
            run(Reading::likelihood, "dense", nlohmann::json::object(), 600).details["nll"]);
}

TEST_F(TeacherForced, TextsOverTheContextAreUnsupported) {
  const auto workload = make_teacher_forced_workload(
      *model, tokenizer, std::make_unique<OneText>(Reading::likelihood, std::vector<int32_t>(100000, 5), 0),
      *backend, 1);
  EXPECT_THROW(workload->prepare(0), Unsupported);
  const auto short_one = make_teacher_forced_workload(
      *model, tokenizer, std::make_unique<OneText>(Reading::likelihood, std::vector<int32_t>{5}, 0), *backend,
      1);
  EXPECT_THROW(short_one->prepare(0), InputError);
}

}  // namespace
}  // namespace prefill
