// RULER's thirteen tasks: exact lengths, answers that stand in the text, perfect and empty answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <set>

#include "core/base/error.h"
#include "tests/tasks/cache_folder.h"
#include "tests/tasks/fake_tokenizer.h"
#include "tests/tasks/make_task.h"

namespace prefill {
namespace {

using nlohmann::json;

std::string prose_file() {
  const std::string path = testing::TempDir() + "ruler_prose.txt";
  std::ofstream out(path);
  for (int i = 0; i < 400; ++i) out << "Sentence number " << i << " of the book says little. ";
  return path;
}
std::string squad_file() {
  json articles = json::array();
  for (int a = 0; a < 12; ++a) {
    json paragraphs = json::array();
    for (int p = 0; p < 4; ++p) {
      const std::string fact = "city" + std::to_string(4 * a + p);
      paragraphs.push_back({{"context", "The capital of land " + std::to_string(4 * a + p) + " is " + fact +
                                            ", which lies by the sea and has a market."},
                            {"qas",
                             {{{"question", "What is the capital?"},
                               {"is_impossible", p == 0},
                               {"answers", p == 0 ? json::array() : json{{{"text", fact}}}}}}}});
    }
    articles.push_back({{"title", "t"}, {"paragraphs", paragraphs}});
  }
  const std::string path = testing::TempDir() + "squad.json";
  std::ofstream(path) << json{{"data", articles}};
  return path;
}
std::string hotpot_file() {
  json items = json::array();
  for (int i = 0; i < 8; ++i) {
    json context = json::array();
    for (int d = 0; d < 3; ++d)
      context.push_back({"Title " + std::to_string(3 * i + d),
                         {"First sentence here. ", "The name is person" + std::to_string(3 * i + d) + "."}});
    items.push_back(
        {{"question", "Who?"}, {"answer", "person" + std::to_string(3 * i)}, {"context", context}});
  }
  const std::string path = testing::TempDir() + "hotpot.json";
  std::ofstream(path) << items;
  return path;
}

struct Case {
  const char* name;
  size_t references;
  int max_new;
};
const Case cases[] = {{"niah_single_1", 1, 128},
                      {"niah_single_2", 1, 128},
                      {"niah_single_3", 1, 128},
                      {"niah_multikey_1", 1, 128},
                      {"niah_multikey_2", 1, 128},
                      {"niah_multikey_3", 1, 128},
                      {"niah_multivalue", 4, 128},
                      {"niah_multiquery", 4, 128},
                      {"vt", 5, 30},
                      {"cwe", 10, 120},
                      {"fwe", 3, 50},
                      {"qa_1", 1, 32},
                      {"qa_2", 1, 32}};

json params_of(const std::string& name) {
  if (name == "qa_1") return {{"file", squad_file()}};
  if (name == "qa_2") return {{"file", hotpot_file()}};
  if (name.starts_with("niah")) return {{"haystack_file", prose_file()}};
  return json::object();
}
std::unique_ptr<Task> ruler(const std::string& name, const Tokenizer& t, int64_t tokens, const json& params) {
  TaskRequest r;
  r.tokens = tokens;
  r.count = 4;
  r.tokenizer = &t;
  return make_task("ruler/" + name, r, params);
}

TEST(Ruler, ExactLengthAndAnswersInTheText) {
  for (bool bos : {false, true})
    for (int64_t tokens : {2500, 4096, 4101})
      for (const Case& c : cases) {
        FakeTokenizer t(FakeTokenizer::words, bos);
        const auto task = ruler(c.name, t, tokens, params_of(c.name));
        EXPECT_EQ(task->max_new_tokens(), c.max_new);
        for (int64_t i : {0, 3}) {
          const Sample s = task->sample(i);
          EXPECT_EQ(int64_t(t.encode(s.prompt).size()), tokens) << c.name;
          EXPECT_EQ(s.tokens, tokens);
          ASSERT_EQ(s.answer.size(), c.references) << c.name;
          std::string all;
          for (const auto& a : s.answer) {
            EXPECT_NE(s.record["context"].get<std::string>().find(a.get<std::string>()), std::string::npos)
                << c.name << " " << a;
            all += a.get<std::string>() + " ";
          }
          EXPECT_EQ(task->score(s, all).value, 1) << c.name;
          EXPECT_EQ(task->score(s, "").value, 0) << c.name;
          EXPECT_NEAR(task->score(s, s.answer[0].get<std::string>()).value, 1.0 / double(c.references), 0.11)
              << c.name;
          EXPECT_EQ(s.prompt, ruler(c.name, t, tokens, params_of(c.name))->sample(i).prompt);
        }
      }
}

TEST(Ruler, CountsOfTheWordTasks) {
  FakeTokenizer t(FakeTokenizer::words);
  const Sample cwe = ruler("cwe", t, 6000, {})->sample(0);
  std::map<std::string, int> times;
  const std::string list = cwe.record["context"];
  static const std::regex entry(R"((\d+)\. ([a-z]+))");
  int last = 0;
  for (std::sregex_iterator it(list.begin(), list.end(), entry), end; it != end; ++it) {
    EXPECT_EQ(std::stoi((*it)[1]), ++last);
    ++times[(*it)[2]];
  }
  EXPECT_GT(times.size(), 20u);
  for (const auto& [word, n] : times) {
    const bool common = std::find(cwe.answer.begin(), cwe.answer.end(), word) != cwe.answer.end();
    EXPECT_EQ(n, common ? 30 : 3) << word;
  }

  const Sample fwe = ruler("fwe", t, 3000, {})->sample(0);
  times.clear();
  std::istringstream in(fwe.record["context"].get<std::string>());
  for (std::string w; in >> w;) ++times[w];
  std::vector<std::pair<int, std::string>> ranked;
  for (const auto& [w, n] : times)
    if (w.size() == 6 && w.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string::npos)
      ranked.emplace_back(-n, w);
  std::sort(ranked.begin(), ranked.end());
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(ranked[i].second, fwe.answer[i]);
  EXPECT_LT(ranked[2].first, ranked[3].first) << "no tie for the third place";
}

// Answers are looked for as substrings of the prediction.
TEST(Ruler, NoOtherWordHoldsACommonOneAndTheCommonOnesAreNoRun) {
  FakeTokenizer t(FakeTokenizer::words);
  static const std::regex entry(R"(\d+\. ([a-z]+))");
  std::set<json> answers;
  for (int64_t tokens : {4096, 100000})
    for (uint64_t seed : {1, 2, 3, 4, 5}) {
      TaskRequest r;
      r.tokens = tokens;
      r.count = 2;
      r.seed = seed;
      r.tokenizer = &t;
      const Sample s = make_task("ruler/cwe", r)->sample(1);
      answers.insert(s.answer);
      std::set<std::string>
          words;  // sorted; those of the example too; of the longer one compounds of three too
      for (std::sregex_iterator it(s.prompt.begin(), s.prompt.end(), entry), end; it != end; ++it)
        words.insert((*it)[1]);
      EXPECT_GT(words.size(), tokens < 100000 ? 100u : 3700u);
      std::vector<std::ptrdiff_t> places;
      for (const std::string answer : s.answer) {
        for (const auto& w : words)
          if (w != answer) {
            EXPECT_EQ(w.find(answer), std::string::npos) << w << " holds " << answer;
          }
        ASSERT_TRUE(words.contains(answer));
        places.push_back(std::distance(words.begin(), words.find(answer)));
      }
      const auto [low, high] = std::minmax_element(places.begin(), places.end());
      EXPECT_GT(*high - *low, std::ptrdiff_t(words.size() / 4)) << s.answer;
    }
  EXPECT_EQ(answers.size(), 5u) << "words by seed, not by length";
}

TEST(Ruler, VariableChainLeadsToTheValue) {
  FakeTokenizer t(FakeTokenizer::words);
  const Sample s = ruler("vt", t, 2500, {})->sample(1);
  const std::string text = s.record["context"], input = s.record["input"];
  static const std::regex form(R"(VAR ([A-Z]{5}) = (?:VAR )?(\w+))");
  std::map<std::string, std::string> value;
  for (std::sregex_iterator it(text.begin(), text.end(), form), end; it != end; ++it)
    value[(*it)[1]] = value.contains((*it)[2]) ? value[(*it)[2]] : (*it)[2].str();
  EXPECT_EQ(value.size(), 5u);
  for (const auto& name : s.answer) EXPECT_NE(input.find(value[name]), std::string::npos);
}

TEST(Ruler, NeedleSentences) {
  FakeTokenizer t(FakeTokenizer::words);
  static const std::regex form(R"(One of the special magic (numbers|uuids) for (\S+) is: (\S+)\.)");
  auto needles = [&](const std::string& name) {
    const std::string text = ruler(name, t, 4096, params_of(name))->sample(2).record["context"];
    return std::distance(std::sregex_iterator(text.begin(), text.end(), form), std::sregex_iterator());
  };
  EXPECT_EQ(needles("niah_single_1"), 1);
  EXPECT_EQ(needles("niah_multikey_1"), 4);
  EXPECT_EQ(needles("niah_multivalue"), 4);
  EXPECT_GT(needles("niah_multikey_2"), 100);
  EXPECT_GT(needles("niah_multikey_3"), 20);
}

TEST(Ruler, WhatNeedsAFileSaysSo) {
  const CacheFolder empty;
  FakeTokenizer t(FakeTokenizer::words);
  for (const char* name : {"niah_single_2", "niah_multiquery", "qa_1", "qa_2"})
    EXPECT_THROW(ruler(name, t, 4096, {}), Unsupported) << name;
  EXPECT_THROW(ruler("qa_1", t, 4096, {{"file", hotpot_file()}}), InputError);
  EXPECT_NO_THROW(ruler("niah_single_2", t, 4096, {{"haystack", "noise"}})->sample(0));
}

TEST(Ruler, FetchedProseIsTheDefaultHaystack) {
  const CacheFolder cache;
  cache.write_prose(
      "It was the best sentence of the book. "
      "Nobody else thought so.\n");
  FakeTokenizer t(FakeTokenizer::words);
  for (const char* name :
       {"niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multivalue", "niah_multiquery"}) {
    const auto task = ruler(name, t, 4096, {});
    EXPECT_NE(task->sample(0).prompt.find("It was the best sentence of the book."), std::string::npos)
        << name;
    EXPECT_EQ(task->provenance()["file"], "austen.txt") << name;
  }
}

}  // namespace
}  // namespace prefill
