// InfiniteBench from files: prompts, labels, truncation, sampling, and what happens to odd rows.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "tasks/infinitebench/dataset.h"
#include "tasks/infinitebench/templates.h"
#include "tasks/truncate.h"
#include "tests/tasks/fake_tokenizer.h"
#include "tests/tasks/make_task.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class InfiniteBench : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& task, const std::string& lines) const {
    std::ofstream(folder_ / (task + ".jsonl"), std::ios::binary) << lines;
  }
  std::unique_ptr<Task> task(const std::string& name, json params = json::object(), int64_t tokens = 4096,
                             int64_t count = 100) const {
    if (!params.contains("folder")) params["folder"] = folder_.string();
    TaskRequest r;
    r.tokens = tokens;
    r.count = count;
    r.tokenizer = &tokenizer_;
    return make_task("infinitebench/" + name, r, params);
  }
  fs::path folder_;
  FakeTokenizer tokenizer_{FakeTokenizer::words, true};
};

const json options = {"alpha", "beta", "gamma", "delta"};

TEST_F(InfiniteBench, AllTwelvePromptsLabelsAndLimits) {
  struct Case {
    const char* task;
    json row, label;
    std::vector<std::string> in_order;  // pieces of the prompt
    int max_new;
  };
  const std::string context = "Some {context} with }braces{ in it.";
  const std::vector<Case> cases{
      {"passkey",
       {{"input", "What is it?"}, {"answer", {"71432"}}},
       {"71432"},
       {context, "What is it?", "The pass key is"},
       6},
      {"number_string",
       {{"input", "Which?"}, {"answer", "3000077442"}},
       "3000077442",
       {context, "Which?", "The sequence of digits is"},
       12},
      {"kv_retrieval",
       {{"input", "\nKey: \"k\"\nis: "}, {"answer", "v"}},
       "v",
       {context, "\n\n\nKey: \"k\"\nis: "},
       50},
      {"longbook_sum_eng", {{"input", "unused"}, {"answer", {"s"}}}, {"s"}, {context, "\n\nSummary:"}, 1200},
      {"longbook_choice_eng",
       {{"input", "Who?"}, {"answer", {"gamma"}}, {"options", options}},
       {"gamma", "C"},
       {context, "Question: Who?\nA. alpha\nB. beta\nC. gamma\nD. delta\n\n"},
       40},
      {"longbook_qa_eng",
       {{"input", "Who?"}, {"answer", {"x", "y"}}},
       {"x", "y"},
       {context, "Question: Who?\nAnswer:"},
       40},
      {"longbook_qa_chn", {{"input", "\u8c01"}, {"answer", {"x"}}}, {"x"}, {context, "\uff1a\u8c01\n"}, 40},
      {"longdialogue_qa_eng",
       {{"input", "unused"}, {"answer", {"ACE"}}},
       {"ACE"},
       {"$$MASK$$", context, "$$MASK$$"},
       40},
      {"math_find",
       {{"input", "You should. The second largest number of the list is: "}, {"answer", {12}}},
       {12},
       {"What is the second largest number in the following list?\n\n" + context,
        "The second largest number of the list is: "},
       3},
      {"math_calc",
       {{"input", "unused"}, {"answer", {4, 8}}},
       {4, 8},
       {"Expression: " + context + "\nValues:"},
       30000},
      {"code_run",
       {{"input", "Value of func_12(-3). Then func_9(1)."}, {"answer", {5}}},
       {5},
       {"func_12", context, "func_12(-3)", "func_12(-3)"},
       5},
      {"code_debug",
       {{"input", "unused"}, {"answer", "beta"}, {"options", options}},
       {"beta", "B"},
       {context, "Options:\nA. alpha\nB. beta\nC. gamma\nD. delta\n\nThe correct option is:"},
       5},
  };
  for (const Case& c : cases) {
    json row = c.row;
    row["id"] = 77;
    row["context"] = context;
    write(c.task, row.dump() + "\n");
    const auto t = task(c.task);
    ASSERT_EQ(t->size(), 1) << c.task;
    const Sample s = t->sample(0);
    EXPECT_EQ(s.id, "0");
    EXPECT_EQ(s.answer, c.label) << c.task;
    EXPECT_EQ(t->max_new_tokens(), c.max_new) << c.task;
    size_t at = 0;
    for (const auto& piece : c.in_order) {
      at = s.prompt.find(piece, at);
      ASSERT_NE(at, std::string::npos) << c.task << ": " << piece << "\n" << s.prompt;
      ++at;
    }
    EXPECT_EQ(size_t(s.tokens), tokenizer_.encode(s.prompt).size());
    EXPECT_EQ(t->provenance()["n"], 1);
    EXPECT_EQ(t->provenance()["sha256"], sha256_file((folder_ / (std::string(c.task) + ".jsonl")).string()));
  }
}

TEST_F(InfiniteBench, ImportedTemplatesAndTheirMistakes) {
  write("passkey", json{{"context", "C{input}"}, {"input", "I"}, {"answer", "1"}}.dump());
  auto with = [&](const std::string& text) {
    std::ofstream(folder_ / "t.json") << json{{"templates", {{"passkey", text}}}};
    return task("passkey", {{"templates", (folder_ / "t.json").string()}})->sample(0).prompt;
  };
  EXPECT_EQ(with("{{x}} {context}|{input}"), "{x} C{input}|I");
  EXPECT_THROW(with("{file:{context}}"), InputError);
  EXPECT_THROW(with("{missing}"), InputError);
  EXPECT_THROW(with("a } b"), InputError);
  write("code_run", json{{"context", "c"}, {"input", "func_1(2)"}, {"answer", 1}}.dump());
  EXPECT_THROW(task("code_run", {{"templates", (folder_ / "t.json").string()}}), InputError);
  std::ofstream(folder_ / "t.json") << "[]";
  EXPECT_THROW(task("passkey", {{"templates", (folder_ / "t.json").string()}}),
               InputError);  // no such file of templates
}

TEST_F(InfiniteBench, MiddleTruncation) {
  // Letters are tokens here; limit 7 -> 3 ids from each end, decoded and encoded again.
  FakeTokenizer bytes(FakeTokenizer::bytes, true, false);
  const std::string text = "abcdefghijklmnop";
  const Truncated even = truncate_middle(text, 8, bytes, false);
  EXPECT_EQ(even.text, "abcmnop");  // BOS is one of the first four
  EXPECT_EQ(even.tokens, 8);
  EXPECT_EQ(even.original_tokens, 17);
  EXPECT_TRUE(even.cut);
  EXPECT_EQ(truncate_middle(text, 7, bytes, false).text,
            "abnop");  // floor + floor keeps one less than the limit
  EXPECT_EQ(truncate_middle(text, 7, bytes, true).text, "abmnop");  // floor + ceil
  const Truncated whole = truncate_middle(text, 17, bytes, false);
  EXPECT_FALSE(whole.cut);
  EXPECT_EQ(whole.text, text);

  write("longbook_sum_eng",
        json{{"context", std::string(500, '7')}, {"input", ""}, {"answer", {"s"}}}.dump());
  const Sample cut = task("longbook_sum_eng", {}, 101)->sample(0);
  EXPECT_LE(cut.tokens, 101);
  EXPECT_GE(cut.tokens, 98);
  EXPECT_TRUE(cut.record["truncated"]);
  EXPECT_GT(cut.record["original_tokens"].get<int64_t>(), 500);
  EXPECT_TRUE(cut.prompt.ends_with("Summary:"));
  EXPECT_THROW(task("longbook_sum_eng", {{"truncation", "refuse"}}, 101)->sample(0), Unsupported);
  EXPECT_LE(
      task("longbook_sum_eng", {{"reserve_answer", true}, {"max_new_tokens", 41}}, 101)->sample(0).tokens,
      60);
  EXPECT_THROW(task("longbook_sum_eng", {{"reserve_answer", true}}, 101), InputError);  // 1200 of 101
}

TEST_F(InfiniteBench, LegacyContentForRetrievalOnly) {
  write("passkey", json{{"content", "old"}, {"input", "I"}, {"answer", "1"}}.dump());
  EXPECT_NE(task("passkey")->sample(0).prompt.find("old"), std::string::npos);
  write("longbook_sum_eng", json{{"content", "old"}, {"answer", {"s"}}}.dump());
  EXPECT_THROW(task("longbook_sum_eng")->sample(0), InputError);
}

TEST_F(InfiniteBench, LabelsThatTheOfficialCodeRefusesScoreZeroWithTheReason) {
  for (const json& answer :
       {json("epsilon"), json::array(), json({"alpha", "E"}), json(5), json({"a", "b", "c"})}) {
    write("code_debug",
          json{{"context", "c"}, {"input", ""}, {"answer", answer}, {"options", options}}.dump());
    const auto t = task("code_debug");
    const Score got = t->score(t->sample(0), "B: beta");
    EXPECT_EQ(got.value, 0);
    EXPECT_FALSE(got.error.empty()) << answer;
  }
  // an empty answer elsewhere: kept, and scored as the profile scores it
  write("passkey", json{{"context", "c"}, {"input", "i"}, {"answer", json::array()}}.dump() + "\n" +
                       json{{"context", "c"}, {"input", "i"}, {"answer", ""}}.dump());
  const auto t = task("passkey");
  EXPECT_FALSE(t->score(t->sample(0), "7").error.empty());
  EXPECT_TRUE(t->score(t->sample(1), "7").error.empty());
  EXPECT_EQ(t->score(t->sample(1), "7").value, 0);
}

TEST_F(InfiniteBench, BadRowsNameFileLineAndByte) {
  const std::string good = json{{"id", 3}, {"context", "c"}, {"input", "i"}, {"answer", "1"}}.dump();
  write("passkey",
        good + "\n\n{\"context\": \"\xFF\"}\n{\"context\": \n[1]\n" + good + "\n{\"answer\": 1}\n");
  const auto t = task("passkey");
  ASSERT_EQ(t->size(), 6);
  auto error = [&](int64_t i) -> std::string {
    try {
      t->sample(i);
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(error(1).find("passkey.jsonl:3: not UTF-8 at byte 13"), std::string::npos) << error(1);
  EXPECT_NE(error(2).find("passkey.jsonl:4: not JSON"), std::string::npos) << error(2);
  EXPECT_NE(error(3).find("passkey.jsonl:5: "), std::string::npos) << error(3);
  EXPECT_NE(error(5).find("passkey.jsonl:7: the row needs a string 'context'"), std::string::npos)
      << error(5);
  // rows with one id are different samples: ids in the data are not looked at
  EXPECT_EQ(t->sample(0).id, "0");
  EXPECT_EQ(t->sample(4).id, "4");
}

TEST_F(InfiniteBench, ARowWithoutAFieldNamesItsPlaceAndTheField) {
  const json whole{{"context", "func_1 is here"},
                   {"input", "The largest number of the list is func_1(2)"},
                   {"answer", "alpha"},
                   {"options", options}};
  auto said = [&](const std::string& name, const char* field) -> std::string {
    json row = whole;
    row.erase(field);
    write(name, whole.dump() + "\n\n" + row.dump());
    const auto t = task(name);
    EXPECT_NO_THROW(t->sample(0)) << name;
    try {
      return t->score(t->sample(1), "alpha").error;  // a label that is missing does not end a run
    } catch (const InputError& e) {
      return e.what();
    }
  };
  for (const char* name : {"passkey", "number_string", "kv_retrieval", "longbook_choice_eng",
                           "longbook_qa_eng", "longbook_qa_chn", "math_find", "code_run"}) {
    const std::string place = (folder_ / name).string() + ".jsonl:3: the row ";
    EXPECT_EQ(said(name, "input"), place + "needs a string 'input'");
    EXPECT_EQ(said(name, "context"), place + "needs a string 'context'");
    EXPECT_EQ(said(name, "answer"), place + "has no 'answer'");
  }
  for (const char* name : {"longbook_sum_eng", "longdialogue_qa_eng", "math_calc", "code_debug"})
    EXPECT_EQ(said(name, "context"),
              (folder_ / name).string() + ".jsonl:3: the row needs a string 'context'");
}

TEST_F(InfiniteBench, RowsAreReadAsPythonReadsThem) {
  write(
      "math_calc",
      R"({"context": "c", "answer": [1, -2.5, true, null], "note": ["\ud800", NaN, -Infinity], "answer": [3]})"
      "\n"
      R"({"context": "a \ud83d\ude00 b", "answer": {"k": ["\u00e9", 1e3, -7]}})"
      "\n"
      R"({"context": "a \ud83d b", "answer": [3]})"
      "\n");
  const auto t = task("math_calc");
  EXPECT_EQ(t->sample(0).answer, json::array({3}));
  const Sample face = t->sample(1);
  EXPECT_NE(face.prompt.find("a \U0001F600 b"), std::string::npos);
  EXPECT_EQ(face.answer, (json{{"k", {"\u00e9", 1000.0, -7}}}));
  EXPECT_TRUE(face.answer["k"][1].is_number_float());
  EXPECT_TRUE(face.answer["k"][2].is_number_integer());
  try {
    t->sample(2);
    FAIL();
  } catch (const InputError& e) {  // Python reads it, but no tokenizer takes it
    EXPECT_NE(std::string(e.what()).find("math_calc.jsonl:3: 'context' has half of a surrogate pair"),
              std::string::npos)
        << e.what();
  }
}

TEST_F(InfiniteBench, SamplingAndMissingData) {
  std::string lines;
  for (int i = 0; i < 20; ++i)
    lines +=
        json{{"context", std::string(size_t(20 - i) * 50, 'x')}, {"input", "i"}, {"answer", "1"}}.dump() +
        "\n";
  write("passkey", lines);
  EXPECT_EQ(task("passkey", {}, 4096, 0)->size(), 20);
  EXPECT_EQ(task("passkey", {}, 4096, 5)->sample(4).id, "4");
  const auto spread = task("passkey", {{"sampling", "by-length"}, {"limit", 5}});
  ASSERT_EQ(spread->size(), 5);
  for (int64_t i = 0; i < 5; ++i)
    EXPECT_EQ(std::stoi(spread->sample(i).id) / 4, i) << "one of each fifth by length";
  EXPECT_THROW(task("code_run"), InputError);  // no such file
  unsetenv("PREFILLBENCH_INFINITEBENCH");
  EXPECT_THROW(task("passkey", {{"folder", ""}}), Unsupported);
  setenv("PREFILLBENCH_INFINITEBENCH", folder_.c_str(), 1);
  EXPECT_EQ(task("passkey", {{"folder", ""}}, 4096, 3)->size(), 3);
  unsetenv("PREFILLBENCH_INFINITEBENCH");
  write("passkey", "\n \n");
  EXPECT_THROW(task("passkey"), InputError);
}

}  // namespace
}  // namespace prefill
