// Broken and unsupported tokenizer files: one clear line each.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/tokenizer.h"
#include "tests/text/fuzz_text.h"

namespace prefill::test {
namespace {

class Errors : public testing::Test {
 protected:
  void SetUp() override {
    folder = testing::TempDir() + "/tokenizer_errors_" +
             testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  void write(const std::string& name, const std::string& bytes) {
    write_file_atomically(folder + "/" + name, bytes);
  }

  // What load_tokenizer(folder) says; fails unless all the texts are in it.
  void expect_error(const std::vector<std::string>& texts) {
    try {
      load_tokenizer(folder);
      ADD_FAILURE() << "no error";
    } catch (const InputError& e) {
      for (const auto& text : texts)
        EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    }
  }

  // qwen2's file with one value replaced.
  void expect_error_with(const std::string& pointer, const nlohmann::json& value,
                         const std::vector<std::string>& texts) {
    auto json = fixture_json("qwen2/tokenizer.json");
    json[nlohmann::json::json_pointer(pointer)] = value;
    write("tokenizer.json", json.dump());
    expect_error(texts);
  }

  std::string folder;
};

TEST_F(Errors, NoFolderOrNoFiles) {
  expect_error({folder, "tokenizer.json", "tokenizer.model"});
  folder += "/missing";
  expect_error({folder, "no such folder"});
}

TEST_F(Errors, BrokenJsonNamesFileAndPlace) {
  write("tokenizer.json", "{\n \"model\": {,}\n}");
  expect_error({folder + "/tokenizer.json", "not valid JSON", "line 2, column 12"});
  write("tokenizer.json", "");
  expect_error({"/tokenizer.json", "not valid JSON"});
  write("tokenizer.json", "[1, 2]");
  expect_error({"/tokenizer.json", "top level"});
  write("tokenizer.json", "{\"model\": \"\xff\"}");
  expect_error({"/tokenizer.json", "not valid JSON"});
}

TEST_F(Errors, TruncatedJsonIsRefusedWhereverItIsCut) {
  const std::string whole = read_file(fixture("gpt2/tokenizer.json"));
  for (const size_t keep : {size_t(1), whole.size() / 3, whole.size() / 2, whole.size() - 1}) {
    write("tokenizer.json", whole.substr(0, keep));
    expect_error({"/tokenizer.json", "not valid JSON"});
  }
}

TEST_F(Errors, UnsupportedComponentsAreNamedWithTheirPath) {
  expect_error_with("/model/type", "Unigram", {"at /model/type", "'Unigram'", "supported: BPE"});
  expect_error_with("/normalizer", {{"type", "NFKD"}}, {"at /normalizer/type", "'NFKD'", "supported: NFC"});
  expect_error_with("/pre_tokenizer/pretokenizers/0/type", "Punctuation",
                    {"at /pre_tokenizer/pretokenizers/0/type", "'Punctuation'", "supported: ByteLevel"});
  expect_error_with("/pre_tokenizer/pretokenizers/0/behavior", "Sideways",
                    {"pretokenizers/0/behavior", "'Sideways'", "Isolated"});
  expect_error_with("/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "[a&&b]"}},
                    {"pattern/Regex", "'&&'"});
  expect_error_with("/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "a("}}, {"pattern/Regex", "a("});
  expect_error_with("/decoder/type", "CTC", {"at /decoder/type", "'CTC'", "supported: ByteLevel"});
  expect_error_with("/post_processor", {{"type", "BertProcessing"}},
                    {"at /post_processor/type", "'BertProcessing'"});
  expect_error_with("/model/dropout", 0.1, {"at /model/dropout"});
  expect_error_with("/model/end_of_word_suffix", "</w>", {"at /model/end_of_word_suffix", "</w>"});
}

TEST_F(Errors, BadVocabulariesAndMerges) {
  expect_error_with("/model/vocab/zzzz", -1, {"at /model/vocab", "'zzzz'"});
  expect_error_with("/model/vocab/zzzz", "x", {"at /model/vocab", "'zzzz'"});
  expect_error_with("/model/vocab/zzzz", 2000000000, {"largest id"});
  expect_error_with("/model/vocab", nlohmann::json::array(), {"at /model/vocab", "object"});
  expect_error_with("/model/merges/2", "abc", {"at /model/merges/2", "'abc'"});
  expect_error_with("/model/merges/3", {"a", "nowhere"}, {"at /model/merges/3", "'nowhere'"});
  expect_error_with("/model/merges", nullptr, {"at /model/merges"});
  expect_error_with("/added_tokens/0/content", 7, {"at /added_tokens/0/content", "string"});
  expect_error_with("/added_tokens", 7, {"at /added_tokens", "list"});
}

TEST_F(Errors, BrokenConfigurationBesideAGoodTokenizer) {
  write("tokenizer.json", read_file(fixture("gpt2/tokenizer.json")));
  write("tokenizer_config.json", "{\"add_bos_token\": \"yes\"}");
  expect_error({"/tokenizer_config.json", "at /add_bos_token", "true or false"});
  write("tokenizer_config.json", "{");
  expect_error({"/tokenizer_config.json", "not valid JSON"});
}

TEST_F(Errors, BrokenSentencePieceModels) {
  const std::string whole = read_file(fixture("sentencepiece/tokenizer.model"));
  write("tokenizer.model", "not a model");
  expect_error({"/tokenizer.model", "not a sentencepiece model"});
  write("tokenizer.model", whole.substr(0, whole.size() / 2));
  expect_error({"/tokenizer.model", "not a sentencepiece model"});
  write("tokenizer.model", "");
  expect_error({"/tokenizer.model"});
}

TEST_F(Errors, TheModelFileStepsInForAnUnsupportedJson) {
  write("tokenizer.json", R"({"model": {"type": "Unigram"}})");
  write("tokenizer.model", read_file(fixture("sentencepiece/tokenizer.model")));
  EXPECT_EQ(load_tokenizer(folder)->kind(), "sentencepiece");
  write("tokenizer.json", "{");  // broken is not the same as unsupported
  expect_error({"/tokenizer.json", "not valid JSON"});
}

TEST_F(Errors, InvalidUtf8IsRefusedWithItsOffset) {
  for (const char* family : {"gpt2", "sentencepiece"}) {
    const auto tokenizer = load_tokenizer(fixture(family));
    try {
      tokenizer->encode("ok \xc3\x28");
      ADD_FAILURE() << "no error";
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find("invalid UTF-8 at byte 3"), std::string::npos) << e.what();
    }
  }
}

TEST_F(Errors, IdsThatDoNotExistDecodeToNothing) {
  for (const char* family : {"gpt2", "llama2", "sentencepiece"}) {
    const auto tokenizer = load_tokenizer(fixture(family));
    EXPECT_EQ(tokenizer->decode({-1, tokenizer->vocab_size(), INT32_MAX}), "");
  }
}

}  // namespace
}  // namespace prefill::test
