// A model that several ranks share computes what one process computes. Ranks are threads here: what they
// share is a file in memory, as between processes.
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "core/model/config.h"
#include "core/model/shard.h"
#include "tests/model/helpers.h"

namespace prefill {
namespace {

/// f(rank, communicator) on `size` ranks at once; the first exception is thrown again.
void on_ranks(int size, const std::function<void(int, Communicator&)>& f,
              std::chrono::seconds timeout = std::chrono::seconds(60)) {
  const TempFolder folder;
  std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        const auto communicator = join_ranks({folder.path(), rank, size, timeout}, at::kCPU);
        f(rank, *communicator);
      } catch (...) {
        errors[size_t(rank)] = std::current_exception();
      }
    });
  for (auto& t : threads) t.join();
  for (const auto& e : errors)
    if (e) std::rethrow_exception(e);
}

/// A folder with random weights and this config.json.
struct RandomModel {
  TempFolder folder;
  explicit RandomModel(const std::string& family, int layers, int q_heads, int kv_heads, int mid,
                       const std::string& more = "") {
    const std::string name = family == "llama" ? "Llama" : family == "qwen2" ? "Qwen2" : "Qwen3";
    write_text(folder / "config.json",
               "{\"architectures\": [\"" + name + "ForCausalLM\"], \"model_type\": \"" + family +
                   "\", \"hidden_size\": 48, \"intermediate_size\": " + std::to_string(mid) +
                   ", \"num_hidden_layers\": " + std::to_string(layers) + ", \"num_attention_heads\": " +
                   std::to_string(q_heads) + ", \"num_key_value_heads\": " + std::to_string(kv_heads) +
                   ", \"head_dim\": 16, \"vocab_size\": 301, \"max_position_embeddings\": 512, "
                   "\"rms_norm_eps\": 1e-5, "
                   "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\", \"tie_word_embeddings\": false, "
                   "\"eos_token_id\": 0, " +
                   more + "\"prefillbench\": {\"weights\": \"random\", \"seed\": 5}}");
  }
};

struct Answer {
  at::Tensor logits;  ///< of all tokens
  std::vector<int32_t> greedy;
};

Answer answer(Model& model, const std::vector<int32_t>& ids) {
  PlainAttention attention;
  Answer out;
  out.logits = model.prefill(ids, attention, Logits::all);
  at::Tensor last = model.prefill(ids, attention, Logits::last);
  for (int i = 0; i < 24; ++i) {
    out.greedy.push_back(last.argmax().item<int32_t>());
    last = model.decode(out.greedy.back());
  }
  return out;
}

std::unique_ptr<Model> load(const std::string& folder, Communicator* ranks) {
  ModelOptions options;
  options.dtype = "float32";
  options.mlp_chunk = 37;  // several sums a layer, the last one shorter
  options.ranks = ranks;
  return load_model(folder, options);
}

void expect_same_on_ranks(const std::string& folder, int size, const std::vector<int32_t>& ids) {
  SCOPED_TRACE(folder + " on " + std::to_string(size) + " ranks");
  const Answer whole = answer(*load(folder, nullptr), ids);
  const int heads = load(folder, nullptr)->shape().q_heads;
  std::vector<Answer> parts(static_cast<size_t>(size));
  std::vector<HeadRange> ranges(static_cast<size_t>(size));
  on_ranks(size, [&](int rank, Communicator& c) {
    const auto model = load(folder, &c);
    parts[size_t(rank)] = answer(*model, ids);
    ranges[size_t(rank)] = model->heads();
  });
  int next = 0;
  for (int rank = 0; rank < size; ++rank) {
    const Answer& part = parts[size_t(rank)];
    // a sum in another order: nothing but float32 rounding may differ
    EXPECT_LE((part.logits - whole.logits).abs().max().item<float>(),
              2e-5 * whole.logits.abs().max().item<float>());
    EXPECT_EQ(part.greedy, whole.greedy);
    EXPECT_TRUE(at::equal(part.logits, parts[0].logits)) << "ranks would part ways";
    EXPECT_EQ(ranges[size_t(rank)].first, next);
    next += ranges[size_t(rank)].count;
  }
  EXPECT_EQ(next, heads);
}

std::vector<int32_t> some_ids() {
  std::vector<int32_t> ids;
  for (int i = 0; i < 150; ++i) ids.push_back((i * i * 7 + 3 * i) % 301);
  return ids;
}

TEST(Ranks, LlamaWithUnevenGroups) {
  // 3 groups of 3 on two ranks: 6 and 3 heads
  const RandomModel model("llama", 3, 9, 3, 200);
  expect_same_on_ranks(model.folder.path(), 2, some_ids());
  expect_same_on_ranks(model.folder.path(), 3, some_ids());
}

TEST(Ranks, LlamaWithBiasesOnEveryMatrix) {
  const RandomModel model("llama", 2, 4, 2, 130, "\"attention_bias\": true, \"mlp_bias\": true, ");
  expect_same_on_ranks(model.folder.path(), 2, some_ids());
}

TEST(Ranks, Qwen2AndQwen3) {
  const RandomModel qwen2("qwen2", 2, 6, 3, 96), qwen3("qwen3", 2, 8, 4, 256);
  expect_same_on_ranks(qwen2.folder.path(), 2, some_ids());
  expect_same_on_ranks(qwen3.folder.path(), 3, some_ids());
}

/// The files that parity with transformers is proved on: slices of a checkpoint, in shards and 16 bits, too.
TEST(Ranks, CheckpointsAgreeWithTransformers) {
  for (const char* name : {"llama2", "llama31", "qwen2", "qwen3", "llama-linear-bias"}) {
    const auto reference = SafetensorsFile::open(fixture(name) + "/reference.safetensors");
    const std::vector<int32_t> ids = to_ids(reference.tensor("ids"));
    on_ranks(2, [&](int, Communicator& c) {
      PlainAttention attention;
      const auto model = load(fixture(name), &c);
      const at::Tensor logits =
          model->prefill(ids, attention, Logits::all).index_select(0, reference.tensor("rows"));
      EXPECT_LE((logits - reference.tensor("logits")).abs().max().item<float>(), 1e-4) << name;
    });
  }
}

TEST(Ranks, MoreThanKeyValueHeadsAreRefused) {
  const RandomModel model("llama", 1, 9, 3, 64);
  const ModelConfig config = read_model_config(model.folder.path());
  EXPECT_SAYS(input_error([&] { shard_of(config, 0, 4); }),
              "3 key/value heads, so at most 3 ranks can share this model, not 4");
}

TEST(Ranks, ColumnsOfTheMlpAreDividedWithoutRest) {
  ModelConfig config;
  config.q_heads = config.kv_heads = 8;
  for (int64_t mid : {8, 63, 64, 1000, 1536, 14336})
    for (int size : {1, 2, 3, 5, 8}) {
      config.intermediate = mid;
      int64_t next = 0;
      for (int rank = 0; rank < size; ++rank) {
        const Shard s = shard_of(config, rank, size);
        EXPECT_EQ(s.mlp.begin, next) << mid << " on " << size;
        EXPECT_GE(s.mlp.size(), 1) << mid << " on " << size;
        next = s.mlp.end;
      }
      EXPECT_EQ(next, mid);
    }
}

TEST(Ranks, SumsOfAnyLengthAndDtype) {
  const int64_t n = (9 << 20) / 4 + 13;  // more than two slots
  on_ranks(3, [&](int rank, Communicator& c) {
    at::Tensor x = at::arange(n, at::kFloat) * (rank + 1);
    c.all_reduce(x);
    EXPECT_TRUE(at::equal(
        x, at::arange(n, at::kFloat) * 1 + at::arange(n, at::kFloat) * 2 + at::arange(n, at::kFloat) * 3));
    at::Tensor half = at::full({2, 5}, 0.5 + rank, at::kBFloat16);
    c.all_reduce(half);
    EXPECT_TRUE(at::equal(half, at::full({2, 5}, 4.5, at::kBFloat16)));
    EXPECT_EQ(c.sums(), 2);
  });
}

TEST(Ranks, ARankThatDoesNotComeIsNamed) {
  std::string said;
  on_ranks(
      2,
      [&](int rank, Communicator& c) {
        if (rank == 1) return;
        at::Tensor x = at::ones({1});
        try {
          c.all_reduce(x);
        } catch (const std::runtime_error& e) {
          said = e.what();
        }
      },
      std::chrono::seconds(1));
  EXPECT_EQ(said, "rank 1 did not come within 1 s");
}

TEST(RandomWeights, AreTheSameAgainAndFinite) {
  const RandomModel model("qwen2", 6, 4, 2, 64);
  const std::vector<int32_t> ids = some_ids();
  PlainAttention attention;
  const auto first = load(model.folder.path(), nullptr), second = load(model.folder.path(), nullptr);
  EXPECT_TRUE(first->random_weights());
  const at::Tensor logits = first->prefill(ids, attention, Logits::all);
  EXPECT_TRUE(at::equal(logits, second->prefill(ids, attention, Logits::all)));
  EXPECT_TRUE(at::isfinite(logits).all().item<bool>());
  const float rms = first->prefill_hidden(ids, attention).square().mean().sqrt().item<float>();
  EXPECT_GT(rms, 0.5f);
  EXPECT_LT(rms, 4.f);
  EXPECT_GT(logits.std(0).mean().item<float>(), 0.1f) << "the prompt does not matter";
}

TEST(RandomWeights, AreNotMistakenForReal) {
  EXPECT_FALSE(load(fixture("llama2"), nullptr)->random_weights());
  const TempFolder dir;
  std::filesystem::copy(fixture("llama2") + "/config.json", dir / "config.json");
  EXPECT_SAYS(input_error([&] { load(dir.path(), nullptr); }), "neither model.safetensors");
}

}  // namespace
}  // namespace prefill
