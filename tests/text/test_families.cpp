// Ids and texts of every tokenizer family against the reference libraries
// (scripts/fixtures/make_tokenizers.py).
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "core/text/tokenizer.h"
#include "tests/text/fuzz_text.h"

namespace prefill::test {
namespace {

class Families : public testing::TestWithParam<const char*> {
 protected:
  std::string folder = fixture(GetParam());
  nlohmann::json answers = fixture_json(std::string(GetParam()) + "/answers.json");
  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(folder);
  uint64_t seed = answers["seed"], count = answers["count"], block = answers["block"];
};

void hash_size(size_t n, uint64_t& h) {
  const auto size = uint32_t(n);
  char bytes[4];
  std::memcpy(bytes, &size, 4);
  h = fnv1a({bytes, 4}, h);
}

// The hashes of blocks of `count` items, each of which `add` mixes in; compared with the reference's.
template <class Add>
void expect_blocks(const std::string& reference, uint64_t count, uint64_t block, Add add) {
  ASSERT_EQ(reference.size(), (count + block - 1) / block * 8);
  int wrong = 0;
  for (uint64_t start = 0, b = 0; start < count; start += block, ++b) {
    uint64_t h = kFnvStart;
    for (uint64_t i = start; i < std::min(count, start + block); ++i) add(i, h);
    char hex[9];
    std::snprintf(hex, sizeof hex, "%08x", unsigned(h & 0xFFFFFFFF));
    if (reference.compare(b * 8, 8, hex) != 0 && ++wrong <= 3)
      ADD_FAILURE() << "block " << b << " (strings " << start << " to " << start + block - 1
                    << ") differs from the reference";
  }
  EXPECT_EQ(wrong, 0);
}

void hash_ids(const std::vector<int32_t>& ids, uint64_t& h) {
  hash_size(ids.size(), h);
  h = fnv1a({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)}, h);
}

void hash_text(const std::string& text, uint64_t& h) {
  hash_size(text.size(), h);
  h = fnv1a(text, h);
}

TEST_P(Families, ReadableStringsGiveTheReferencesIds) {
  for (const auto& one : answers["readable"]) {
    const std::string text = one["text"];
    EXPECT_EQ(tokenizer->encode(text), one["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer->encode(text, false), one["plain"].get<std::vector<int32_t>>()) << text;
  }
}

TEST_P(Families, FuzzCorpusGivesTheReferencesIds) {
  const auto parts = fixture_json("fuzz_parts.json");
  ASSERT_GE(count, 20000u);
  expect_blocks(answers["encode"], count, block, [&](uint64_t i, uint64_t& h) {
    hash_ids(tokenizer->encode(fuzz_string(seed, i, parts)), h);
  });
}

TEST_P(Families, DecodingGivesTheReferencesText) {
  const auto parts = fixture_json("fuzz_parts.json");
  for (const bool skip : {true, false}) {
    const std::string mode = skip ? "skip_special" : "keep_special";
    if (!answers.contains("decode_" + mode)) continue;  // sentencepiece has no word for kept special tokens
    expect_blocks(answers["decode_" + mode], count, block, [&](uint64_t i, uint64_t& h) {
      hash_text(tokenizer->decode(tokenizer->encode(fuzz_string(seed, i, parts)), skip), h);
    });
    expect_blocks(answers["decode_random_" + mode], count / 4, block, [&](uint64_t i, uint64_t& h) {
      hash_text(tokenizer->decode(fuzz_ids(seed + 1, i, answers["vocab_size"]), skip), h);
    });
  }
}

TEST_P(Families, TokensHaveTheirIds) {
  EXPECT_EQ(tokenizer->token_id("no such token"), -1);
  EXPECT_EQ(tokenizer->token_id(""), -1);
  EXPECT_GE(tokenizer->vocab_size(), answers["vocab_size"].get<int32_t>());
  if (std::string(GetParam()) == "llama3") {
    EXPECT_EQ(tokenizer->bos_id(), tokenizer->token_id("<|begin_of_text|>"));
    EXPECT_EQ(tokenizer->encode("").at(0), tokenizer->bos_id());
  }
  if (std::string(GetParam()) == "qwen2") {
    EXPECT_EQ(tokenizer->bos_id(), -1);
    EXPECT_EQ(tokenizer->encode("<|im_end|>"), std::vector<int32_t>{tokenizer->token_id("<|im_end|>")});
  }
  if (std::string(GetParam()) == "sentencepiece-chat") {
    EXPECT_EQ(tokenizer->token_id("<|im_end|>"), 701);
    EXPECT_EQ(tokenizer->vocab_size(), 702);
    EXPECT_EQ(tokenizer->decode({700, 701}, false), "<|im_start|><|im_end|>");
    EXPECT_EQ(tokenizer->decode({700, 701}, true), "");
    EXPECT_EQ(tokenizer->eos_ids(), std::vector<int32_t>{2});
  }
}

TEST_P(Families, ManyThreadsMayEncode) {
  const auto parts = fixture_json("fuzz_parts.json");
  std::vector<uint64_t> hashes(4, kFnvStart);
  {
    std::vector<std::jthread> threads;
    for (uint64_t& h : hashes)
      threads.emplace_back([&] {
        for (uint64_t i = 0; i < 500; ++i) hash_ids(tokenizer->encode(fuzz_string(seed, i, parts)), h);
      });
  }
  EXPECT_EQ(hashes, std::vector<uint64_t>(4, hashes[0]));
}

// One word without a blank, longer than any cache line of the tokenizer: must not go quadratic, and must say
// what the same letters in short words say wherever words end.
TEST_P(Families, LongWordsAndLongTexts) {
  std::string word;
  for (int i = 0; i < 300000; ++i) word += char('a' + (uint64_t(i) * i * 7919 >> 5) % 26);
  const auto ids = tokenizer->encode(word, false);
  EXPECT_GT(ids.size(), word.size() / 20);
  EXPECT_EQ(tokenizer->decode(ids), std::string(GetParam()) == "flags" ? " " + word : word);
  for (const std::string& run :
       {std::string(1 << 20, ' '), std::string(1 << 20, '\n'), std::string(1 << 20, '7')})
    EXPECT_FALSE(tokenizer->encode(run + "x", false).empty());
}

INSTANTIATE_TEST_SUITE_P(Text, Families,
                         testing::Values("gpt2", "llama3", "qwen2", "smollm", "llama2", "flags",
                                         "sentencepiece", "sentencepiece-chat"),
                         [](const auto& given) {
                           std::string name = given.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace prefill::test
