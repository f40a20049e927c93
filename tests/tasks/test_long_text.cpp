// Windows of long text: exact lengths, one behind the other, nothing lost, and what is said when there is too
// little.
#include <gtest/gtest.h>

#include <fstream>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "tests/tasks/cache_folder.h"
#include "tests/tasks/fake_tokenizer.h"
#include "tests/tasks/make_task.h"

namespace prefill {
namespace {

std::string book_file(const std::string& text) {
  const std::string path =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() + ".txt";
  std::ofstream(path, std::ios::binary) << text;
  return path;
}
std::string book_lines(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += "Line number " + std::to_string(i) + " of a long and quiet book.\n";
  return out;
}
TaskRequest window_request(const Tokenizer& t, int64_t tokens, int64_t count) {
  TaskRequest r;
  r.tokens = tokens;
  r.count = count;
  r.tokenizer = &t;
  return r;
}

TEST(LongText, WindowsFollowEachOtherAndHoldMoreThanTheirTokens) {
  const std::string text = book_lines(2000), path = book_file(text);
  for (const char* name : {"perplexity", "agreement"})
    for (const auto kind : {FakeTokenizer::bytes, FakeTokenizer::words, FakeTokenizer::pairs})
      for (const bool special : {false, true}) {
        FakeTokenizer t(kind, special, special);
        const auto task = make_task(name, window_request(t, 777, 5), {{"text", path}});
        ASSERT_EQ(task->size(), 5);
        size_t at = 0;
        for (int64_t i = 0; i < 5; ++i) {
          const Sample s = task->sample(i);
          EXPECT_EQ(text.substr(at, s.prompt.size()), s.prompt) << "window " << i;
          at += s.prompt.size();
          EXPECT_EQ(s.tokens, 777);
          const auto n = int64_t(t.encode(s.prompt).size());
          EXPECT_GT(n, 777);
          EXPECT_LT(n, 777 + 120) << "a line or two too many at most";
          EXPECT_TRUE(s.prompt.starts_with("Line number "));
        }
        EXPECT_EQ(task->provenance()["sha256"], sha256_hex(text));
        EXPECT_EQ(task->sample(2).prompt,
                  make_task(name, window_request(t, 777, 3), {{"text", path}})->sample(2).prompt)
            << "the count does not move the windows";
      }
}

TEST(LongText, TextsWithoutLinesOrBlanksAreCutBetweenCharacters) {
  FakeTokenizer t(FakeTokenizer::bytes);
  std::string blanks, none;
  for (int i = 0; i < 3000; ++i) blanks += "word ", none += "\u6211";
  for (const std::string& text : {blanks, none}) {
    const auto task = make_task("perplexity", window_request(t, 1500, 3), {{"text", book_file(text)}});
    std::string all;
    for (int64_t i = 0; i < 3; ++i) {
      const std::string prompt = task->sample(i).prompt;
      EXPECT_LT(prompt.size(), 4600u);
      EXPECT_NE(prompt[0] & 0xC0, 0x80) << "begins inside a character";
      all += prompt;
    }
    EXPECT_EQ(all, text.substr(0, all.size()));
  }
}

TEST(LongText, TooLittleTextIsSaidWithWhatThereIs) {
  FakeTokenizer t(FakeTokenizer::words);
  const std::string path = book_file(book_lines(100));
  EXPECT_NO_THROW(make_task("perplexity", window_request(t, 500, 2), {{"text", path}}));
  try {
    make_task("perplexity", window_request(t, 500, 50), {{"text", path}});
    FAIL();
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("windows of 500 tokens, not 50"), std::string::npos) << e.what();
  }
  EXPECT_THROW(make_task("perplexity", window_request(t, 500, 1), {{"text", book_file("")}}), InputError);
  EXPECT_THROW(
      make_task("perplexity", window_request(t, 500, 1), {{"text", book_file(book_lines(100) + "\xff")}}),
      InputError);
  EXPECT_THROW(make_task("perplexity", window_request(t, 500, 1), {{"text", path + ".absent"}}), InputError);
}

TEST(LongText, FetchedProseIsTheDefault) {
  const CacheFolder cache;
  FakeTokenizer t(FakeTokenizer::words);
  try {
    make_task("agreement", window_request(t, 500, 1));
    FAIL();
  } catch (const Unsupported& e) {
    EXPECT_NE(std::string(e.what()).find("scripts/fetch_prose.py"), std::string::npos) << e.what();
  }
  cache.write_prose(book_lines(100));
  EXPECT_TRUE(
      make_task("agreement", window_request(t, 500, 1))->sample(0).prompt.starts_with("Line number 0 of"));
}

TEST(LongText, AnswersAreNotScored) {
  FakeTokenizer t(FakeTokenizer::words);
  const auto task = make_task("perplexity", window_request(t, 50, 1), {{"text", book_file(book_lines(20))}});
  EXPECT_EQ(task->reading(), Reading::likelihood);
  EXPECT_EQ(task->max_new_tokens(), 0);
  EXPECT_THROW(task->score(task->sample(0), "x"), InputError);
}

}  // namespace
}  // namespace prefill
