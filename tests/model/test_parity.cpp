// Tiny checkpoints against what transformers computed from them (scripts/fixtures/make_checkpoints.py).
#include <gtest/gtest.h>

#include "core/model/config.h"
#include "tests/model/helpers.h"

namespace prefill {
namespace {

class Parity : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder = fixture(GetParam());
    reference = std::make_unique<SafetensorsFile>(SafetensorsFile::open(folder + "/reference.safetensors"));
    ids = to_ids(reference->tensor("ids"));
    ModelOptions options;
    options.dtype = "float32";
    model = load_model(folder, options);
  }
  at::Tensor rows(const at::Tensor& logits) const {
    return logits.index_select(0, reference->tensor("rows"));
  }

  std::string folder;
  std::unique_ptr<SafetensorsFile> reference;
  std::vector<int32_t> ids;
  std::unique_ptr<Model> model;
  PlainAttention attention;
};

TEST_P(Parity, LogitsAgreeWithTransformers) {
  const at::Tensor logits = rows(model->prefill(ids, attention, Logits::all));
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  EXPECT_LE((logits - reference->tensor("logits")).abs().max().item<float>(), 1e-4);
}

TEST_P(Parity, GreedyContinuationIsTheSame) {
  at::Tensor logits = model->prefill(ids, attention, Logits::last);
  std::vector<int32_t> out;
  for (int i = 0; i < 32; ++i) {
    out.push_back(logits.argmax().item<int32_t>());
    logits = model->decode(out.back());
  }
  EXPECT_EQ(out, to_ids(reference->tensor("greedy")));
}

TEST_P(Parity, DecodingEqualsAFullForward) {
  if (read_model_config(folder).rope.type == "dynamic")
    GTEST_SKIP() << "cached keys keep the base of their own length";
  const std::vector<int32_t> start(ids.begin(), ids.begin() + 100);
  model->prefill(start, attention);
  at::Tensor stepwise;
  for (size_t i = 100; i < ids.size(); ++i) stepwise = model->decode(ids[i]);
  model->reset();
  const at::Tensor whole = model->prefill(ids, attention);
  EXPECT_LE((stepwise - whole).abs().max().item<float>(), 1e-4);
}

TEST_P(Parity, ChunkSizeDoesNotMatter) {
  ModelOptions options;
  options.dtype = "float32";
  options.mlp_chunk = 7;
  const at::Tensor small = load_model(folder, options)->prefill(ids, attention, Logits::all);
  EXPECT_LE((small - model->prefill(ids, attention, Logits::all)).abs().max().item<float>(), 2e-5);
}

TEST_P(Parity, LastLogitsAreTheLastRowOfAll) {
  const at::Tensor all = model->prefill(ids, attention, Logits::all), last = model->prefill(ids, attention);
  EXPECT_EQ(last.sizes(), at::IntArrayRef({1, all.size(1)}));
  EXPECT_LE((last[0] - all[-1]).abs().max().item<float>(), 2e-5);
}

TEST_P(Parity, SixteenBitStaysClose) {
  for (const char* dtype : {"bfloat16", "float16"}) {
    ModelOptions options;
    options.dtype = dtype;
    const auto narrow = load_model(folder, options);
    EXPECT_EQ(narrow->dtype(), dtype);
    const at::Tensor logits = rows(narrow->prefill(ids, attention, Logits::all)),
                     wanted = reference->tensor("logits");
    // bfloat16 keeps 8 bits: a few per cent of the logits' spread after two layers; float16 keeps 11
    const double error = ((logits - wanted).square().mean() / wanted.square().mean()).sqrt().item<double>();
    EXPECT_LE(error, std::string(dtype) == "bfloat16" ? 0.05 : 0.006) << dtype;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Parity,
                         testing::Values("llama2", "llama31", "llama32-tied", "llama-linear-bias",
                                         "llama-dynamic", "llama-yarn", "llama-yarn-mscale", "mistral",
                                         "qwen2", "qwen25-yarn", "qwen3"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

}  // namespace
}  // namespace prefill
