// Each way a model folder can be wrong gives one line that names the file, the key or the tensor.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/model/config.h"
#include "core/model/inspect.h"
#include "tests/model/helpers.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;

class BadFolder : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto& f : fs::directory_iterator(fixture("qwen2"))) fs::copy(f.path(), dir.path());
  }
  nlohmann::json config() const {
    std::ifstream in(dir / "config.json");
    return nlohmann::json::parse(in);
  }
  void set(const std::string& key, const nlohmann::json& value) {
    auto c = config();
    c[key] = value;
    write_text(dir / "config.json", c.dump());
  }
  /// Rewrites the weights after `change` has had its way with them.
  void rewrite(const std::function<void(std::map<std::string, at::Tensor>&)>& change) {
    std::map<std::string, at::Tensor> tensors;
    {
      const auto file = SafetensorsFile::open(dir / "model.safetensors");
      for (const auto& [name, e] : file.entries()) tensors[name] = file.tensor(name).clone();
    }
    change(tensors);
    write_safetensors(dir / "model.safetensors", {tensors.begin(), tensors.end()});
  }
  std::string error() {
    return input_error([&] { load_model(dir.path(), {}); });
  }
  TempFolder dir;
};

constexpr const char* kWeight = "model.layers.1.mlp.down_proj.weight";

TEST_F(BadFolder, TheCopyItselfIsGood) { EXPECT_EQ(error(), ""); }

TEST_F(BadFolder, MissingTensor) {
  rewrite([](auto& t) { t.erase(kWeight); });
  EXPECT_SAYS(error(), "tensor 'model.layers.1.mlp.down_proj.weight' is missing; expected shape [32, 48]");
}

TEST_F(BadFolder, MisshapedTensor) {
  rewrite([](auto& t) { t[kWeight] = t[kWeight].t().contiguous(); });
  EXPECT_SAYS(error(),
              "model.safetensors: tensor 'model.layers.1.mlp.down_proj.weight' has shape [48, 32], expected "
              "[32, 48]");
}

TEST_F(BadFolder, IntegerWeights) {
  rewrite([](auto& t) { t[kWeight] = t[kWeight].to(at::kChar); });
  EXPECT_SAYS(error(), "tensor 'model.layers.1.mlp.down_proj.weight' is I8, expected F32, F16 or BF16");
}

TEST_F(BadFolder, NanAndInfinity) {
  for (const auto& [value, word] : {std::pair(NAN, "holds NaN"), std::pair(-INFINITY, "holds infinity")}) {
    rewrite([&](auto& t) { t[kWeight][3][5] = value; });
    for (const char* dtype : {"float32", "bfloat16"}) {
      ModelOptions options;
      options.dtype = dtype;
      EXPECT_SAYS(input_error([&] { load_model(dir.path(), options); }),
                  str("tensor '", kWeight, "' ", word));
    }
  }
}

TEST_F(BadFolder, TensorThatTheConfigurationDoesNotUse) {
  rewrite([](auto& t) { t["model.layers.0.self_attn.o_proj.bias"] = at::zeros({32}, at::kBFloat16); });
  EXPECT_SAYS(error(), "tensor 'model.layers.0.self_attn.o_proj.bias' is not part of a qwen2 model");
}

TEST_F(BadFolder, TruncatedWeights) {
  fs::resize_file(dir / "model.safetensors", fs::file_size(dir / "model.safetensors") / 2);
  EXPECT_SAYS(error(), "model.safetensors: truncated: tensor");
}

TEST_F(BadFolder, NoWeights) {
  fs::rename(dir / "model.safetensors", dir / "pytorch_model.bin");
  fs::remove(dir / "reference.safetensors");
  EXPECT_SAYS(error(), "neither model.safetensors nor model.safetensors.index.json; found pytorch_model.bin");
}

TEST_F(BadFolder, Configuration) {
  const std::string whole = config().dump();
  const auto with = [&](const char* key, const nlohmann::json& value) {
    write_text(dir / "config.json", whole);
    set(key, value);
    return error();
  };
  EXPECT_SAYS(with("hidden_size", nullptr), "config.json: 'hidden_size' is missing");
  EXPECT_SAYS(with("hidden_size", "32"), "'hidden_size' is \"32\", expected a positive integer");
  EXPECT_SAYS(with("hidden_size", 40),
              "tensor 'model.embed_tokens.weight' has shape [96, 32], expected [96, 40]");
  EXPECT_SAYS(with("num_key_value_heads", 3),
              "'num_attention_heads' (4) is not a multiple of 'num_key_value_heads' (3)");
  EXPECT_SAYS(with("architectures", {"GPT2LMHeadModel"}),
              "'architectures' is GPT2LMHeadModel; supported are LlamaForCausalLM");
  EXPECT_SAYS(with("architectures", {"LlamaForCausalLM"}),
              "'model_type' is qwen2, which does not belong to LlamaForCausalLM");
  EXPECT_SAYS(with("hidden_act", "gelu"), "'hidden_act' is gelu");
  EXPECT_SAYS(with("quantization_config", {{"bits", 4}}), "'quantization_config'");
  EXPECT_SAYS(with("rope_scaling", {{"type", "longrope"}, {"factor", 4.0}}),
              "rope_scaling: rope type 'longrope' is not supported");
  EXPECT_SAYS(with("rope_scaling", {{"type", "linear"}}), "rope_scaling: 'factor' is missing");
  EXPECT_SAYS(with("rope_scaling", {{"type", "linear"}, {"factor", "2"}}),
              "'factor' is \"2\", expected a number");
  write_text(dir / "config.json", "{\"hidden_size\": ");
  EXPECT_SAYS(error(), "config.json: not valid JSON");
  fs::remove(dir / "config.json");
  EXPECT_SAYS(error(), "config.json: can not be read");
  EXPECT_SAYS(input_error([] { load_model("/nonexistent", {}); }), "/nonexistent: no such folder");
}

TEST_F(BadFolder, Shards) {
  const TempFolder sharded;
  for (const auto& f : fs::directory_iterator(fixture("llama31"))) fs::copy(f.path(), sharded.path());
  const auto say = [&] { return input_error([&] { load_model(sharded.path(), {}); }); };
  EXPECT_EQ(say(), "");
  fs::rename(sharded / "model-00001-of-00003.safetensors", sharded / "kept");
  EXPECT_SAYS(say(), "shard model-00001-of-00003.safetensors is missing");
  fs::copy(sharded / "model-00002-of-00003.safetensors", sharded / "model-00001-of-00003.safetensors");
  EXPECT_SAYS(say(), "is not in model-00001-of-00003.safetensors, where weight_map puts it");
  write_text(sharded / "model.safetensors.index.json", "{}");
  EXPECT_SAYS(say(), "model.safetensors.index.json: expected an object with a weight_map");
}

TEST_F(BadFolder, Prompts) {
  const auto model = load_model(dir.path(), {});
  PlainAttention attention;
  EXPECT_SAYS(input_error([&] { model->prefill({}, attention); }), "the prompt is empty");
  EXPECT_SAYS(input_error([&] { model->prefill({1, 96}, attention); }), "token 1 of the prompt has id 96");
  EXPECT_SAYS(input_error([&] { model->prefill({1, -1}, attention); }), "has id -1");
  EXPECT_SAYS(input_error([&] { model->prefill(std::vector<int32_t>(257, 5), attention); }),
              "has 257 tokens, but");
}

TEST_F(BadFolder, SlidingWindowLimitsTheContext) {
  set("sliding_window", 20);
  EXPECT_EQ(load_model(dir.path(), {})->max_tokens(), 256) << "use_sliding_window is false";
  set("use_sliding_window", true);
  set("max_window_layers", 1);
  const auto model = load_model(dir.path(), {});
  EXPECT_EQ(model->max_tokens(), 20);
  PlainAttention attention;
  EXPECT_SAYS(input_error([&] { model->prefill(std::vector<int32_t>(21, 5), attention); }), "sliding_window");
  model->prefill(std::vector<int32_t>(20, 5), attention);
  EXPECT_SAYS(input_error([&] { model->decode(5); }), "sliding_window");
}

TEST_F(BadFolder, EosIdsComeFromGenerationConfigFirst) {
  EXPECT_EQ(load_model(dir.path(), {})->eos_ids(), std::vector<int32_t>({2}));
  write_text(dir / "generation_config.json", R"({"eos_token_id": [7, 9]})");
  EXPECT_EQ(load_model(dir.path(), {})->eos_ids(), std::vector<int32_t>({7, 9}));
}

TEST_F(BadFolder, InspectionSaysWhatItDidNotRead) {
  rewrite([](auto& t) { t[kWeight][3][5] = NAN; });
  std::string all;
  for (const auto& f : check_model_folder(dir.path(), 100)) all += f.detail + "\n";
  EXPECT_NE(all.find("not read for NaN and infinity"), std::string::npos) << all;
  EXPECT_EQ(all.find("holds NaN"), std::string::npos);
}

TEST_F(BadFolder, InspectionFindsAllAtOnceAndNeverThrows) {
  const auto errors = [&] {
    std::string all;
    for (const auto& f : check_model_folder(dir.path()))
      if (f.level == ModelFinding::error) all += f.what + ": " + f.detail + "\n";
    return all;
  };
  EXPECT_EQ(errors().find("tensors"), std::string::npos) << errors();
  EXPECT_NE(errors().find("tokenizer"), std::string::npos) << "the fixture has no tokenizer";
  rewrite([](auto& t) {
    t[kWeight][3][5] = NAN;
    t["model.norm.weight"][0] = INFINITY;
  });
  for (const std::string& said : {str("model.safetensors: tensor '", kWeight, "' holds NaN"),
                                  std::string("tensor 'model.norm.weight' holds infinity")})
    EXPECT_NE(errors().find(said), std::string::npos) << errors();
  rewrite([](auto& t) {
    t.erase(kWeight);
    t["model.norm.weight"] = at::ones({31});
  });
  EXPECT_NE(errors().find(kWeight), std::string::npos);
  EXPECT_NE(errors().find("'model.norm.weight' has shape [31], expected [32]"), std::string::npos);
  write_text(dir / "config.json", "[]");
  EXPECT_NE(errors().find("config: "), std::string::npos);
  EXPECT_FALSE(check_model_folder("/nonexistent").empty());
}

}  // namespace
}  // namespace prefill
