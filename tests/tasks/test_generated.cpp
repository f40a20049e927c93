// Generated tasks: exact lengths, same bytes, right answers (recomputed another way), round trip through the
// scorer.
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "tasks/generated/exact_length.h"
#include "tasks/generated/haystack.h"
#include "tests/tasks/fake_tokenizer.h"
#include "tests/tasks/make_task.h"

namespace prefill {
namespace {

const std::vector<std::string> generated{"passkey",   "number_string", "kv_retrieval",   "math_find",
                                         "math_calc", "code_run",      "needle_multikey"};

TaskRequest request(const Tokenizer& t, int64_t tokens, int64_t count = 3, uint64_t seed = 7) {
  TaskRequest r;
  r.tokens = tokens;
  r.count = count;
  r.seed = seed;
  r.tokenizer = &t;
  return r;
}

std::string answer_text(const Sample& s) {
  const nlohmann::json& a = s.answer.is_array() && s.answer.size() == 1 ? s.answer[0] : s.answer;
  return a.is_string() ? a.get<std::string>() : a.dump();
}

TEST(Generated, ExactLengthUnderEveryTokenizer) {
  for (const auto& name : generated)
    for (auto kind : {FakeTokenizer::words, FakeTokenizer::bytes, FakeTokenizer::pairs})
      for (bool special : {false, true})
        for (int64_t tokens : {2048, 2049, 2050, 3071}) {
          FakeTokenizer t(kind, special, special);
          const auto task =
              make_task(name, request(t, kind == FakeTokenizer::words ? tokens : 3 * tokens, 2));
          const Sample s = task->sample(1);
          EXPECT_EQ(t.encode(s.prompt).size(), size_t(s.tokens)) << name << " " << kind << " " << tokens;
          EXPECT_EQ(s.tokens, kind == FakeTokenizer::words ? tokens : 3 * tokens);
        }
}

TEST(Generated, EveryLengthInARowIsReached) {
  FakeTokenizer t(FakeTokenizer::words, true);
  for (const auto& name : generated)
    for (int64_t tokens = 1000; tokens < 1060; ++tokens)
      EXPECT_EQ(t.encode(make_task(name, request(t, tokens))->sample(0).prompt).size(), size_t(tokens))
          << name;
}

// The module of code_run is drawn anew for every number of functions: with one more it may be shorter.
TEST(Generated, CodeRunReachesEverySeedAndLength) {
  FakeTokenizer t(FakeTokenizer::words, true);
  for (int64_t tokens : {4096, 8192, 32768})
    for (uint64_t seed = 1; seed <= 8; ++seed) {
      const auto task = make_task("code_run", request(t, tokens, 5, seed));
      for (int64_t i = 0; i < 5; ++i) {
        const Sample s = task->sample(i);
        EXPECT_EQ(t.encode(s.prompt).size(), size_t(tokens)) << "seed " << seed << " sample " << i;
        // the padding stays small: the functions fill what they can
        EXPECT_LT(s.record["context"].get<std::string>().find("def func_"), size_t(tokens / 8));
      }
    }
}

TEST(Generated, ExactLengthWhereMoreUnitsMayBeFewerTokens) {
  FakeTokenizer t(FakeTokenizer::bytes);
  auto scattered = [](int64_t units, const std::string& padding) {
    return padding + std::string(size_t(20 * units + units * 7919 % 101), 'x');
  };
  for (int64_t tokens = 2000; tokens < 2400; ++tokens) {
    const Fitted got = fit_exactly(scattered, 2, tokens, t, "scattered");
    EXPECT_EQ(int64_t(scattered(got.units, got.padding.text()).size()), tokens);
  }
  auto constant = [](int64_t, const std::string& padding) { return padding + std::string(50, 'x'); };
  EXPECT_THROW(fit_exactly(constant, 2, 2000, t, "constant"), InputError);
}

TEST(Generated, FieldsAndSameBytes) {
  FakeTokenizer t(FakeTokenizer::words);
  for (const auto& name : generated) {
    const auto a = make_task(name, request(t, 2000)), b = make_task(name, request(t, 2000)),
               other = make_task(name, request(t, 2000, 3, 8));
    std::set<std::string> prompts;
    for (int64_t i = 0; i < 3; ++i) {
      const Sample s = a->sample(i);
      EXPECT_EQ(s.prompt, b->sample(i).prompt);
      EXPECT_EQ(s.record, b->sample(i).record);
      EXPECT_NE(s.prompt, other->sample(i).prompt);
      for (const char* field : {"id", "context", "input", "answer", "options"})
        EXPECT_TRUE(s.record.contains(field)) << name << " " << field;
      EXPECT_EQ(s.record["id"], i);
      EXPECT_NE(s.prompt.find(s.record["context"].get<std::string>()), std::string::npos);
      prompts.insert(s.prompt);
    }
    EXPECT_EQ(prompts.size(), 3u);
    EXPECT_THROW(a->sample(3), InputError);
    EXPECT_THROW(a->sample(-1), InputError);
  }
}

TEST(Generated, SamplesShareNothingByChance) {
  FakeTokenizer t(FakeTokenizer::words);
  const auto task = make_task("kv_retrieval", request(t, 3000, 6));
  static const std::regex uuid("[0-9a-f]{8}-[0-9a-f-]{27}");
  std::set<std::string>
      halves;  // a number drawn is half a uuid: without the bits that say version and variant
  size_t drawn = 0;
  for (int64_t i = 0; i < 6; ++i) {
    const std::string context = task->sample(i).record["context"];
    for (std::sregex_iterator it(context.begin(), context.end(), uuid), end; it != end; ++it) {
      std::string hex = it->str();
      std::erase(hex, '-');
      for (const size_t at : {0, 16}) halves.insert(hex.substr(at + 1, 11) + hex.substr(at + 13, 3)), ++drawn;
    }
  }
  EXPECT_GT(drawn, 500u);
  EXPECT_EQ(halves.size(), drawn);
}

TEST(Generated, DepthsAreStratified) {
  FakeTokenizer t(FakeTokenizer::words);
  for (const char* name : {"passkey", "number_string", "kv_retrieval", "needle_multikey"}) {
    const auto task = make_task(name, request(t, 3000, 10));
    std::set<double> inside;
    for (int64_t i = 0; i < 10; ++i) {
      const Sample s = task->sample(i);
      const double depth = s.record["depth"];
      EXPECT_GE(depth, double(i) / 10);
      EXPECT_LT(depth, double(i + 1) / 10);
      inside.insert(depth * 10 - double(i));
      // and the needle is there: its place in the context, as a share of the text
      const std::string context = s.record["context"];
      const double place = double(context.find(answer_text(s))) / double(context.size());
      EXPECT_NEAR(place, depth, 0.08) << name << " " << i;
    }
    EXPECT_GT(inside.size(), 5u) << "jittered";
  }
}

TEST(Generated, NeedlesAreThereOnce) {
  FakeTokenizer t(FakeTokenizer::words);
  for (int64_t i = 0; i < 3; ++i) {
    const Sample key = make_task("passkey", request(t, 2000))->sample(i);
    EXPECT_TRUE(std::regex_match(answer_text(key), std::regex("[0-9]{5}")));
    const std::string context = key.record["context"],
                      sentence = "The pass key is " + answer_text(key) + ". Remember it.";
    EXPECT_NE(context.find(sentence), std::string::npos);
    EXPECT_EQ(context.find("The pass key is"), context.rfind("The pass key is"));
    EXPECT_TRUE(key.prompt.ends_with("\n\nThe pass key is"));

    const Sample number = make_task("number_string", request(t, 2000))->sample(i);
    EXPECT_TRUE(std::regex_match(answer_text(number), std::regex("[0-9]{10}")));
    size_t doubled = 0;  // five doublings leave at least five digits equal to a neighbour's
    const std::string digits = answer_text(number);
    for (size_t k = 1; k < 10; ++k) doubled += digits[k] == digits[k - 1];
    EXPECT_GE(doubled, 5u);

    const Sample needle = make_task("needle_multikey", request(t, 2000), {{"keys", 5}})->sample(i);
    const std::string text = needle.record["context"];
    static const std::regex form(R"(One of the special magic values for (\S+) is: (\d{7})\.)");
    std::map<std::string, std::string> found;
    for (std::sregex_iterator it(text.begin(), text.end(), form), end; it != end; ++it)
      found[(*it)[1]] = (*it)[2];
    EXPECT_EQ(found.size(), 5u);
    std::smatch asked;
    const std::string input = needle.record["input"];
    ASSERT_TRUE(std::regex_search(input, asked, std::regex(R"(value for (\S+) mentioned)")));
    EXPECT_EQ(found[asked[1]], answer_text(needle));
  }
}

TEST(Generated, KeyValueAnswerIsTheJsonValue) {
  FakeTokenizer t(FakeTokenizer::words);
  for (int64_t i = 0; i < 3; ++i) {
    const Sample s = make_task("kv_retrieval", request(t, 3000))->sample(i);
    const std::string context = s.record["context"];
    const auto object = nlohmann::json::parse(context.substr(context.find('{')));
    EXPECT_EQ(int64_t(object.size()), s.record["pairs"].get<int64_t>());
    const std::string input = s.record["input"];
    EXPECT_EQ(object.at(input.substr(6, 36)), answer_text(s));
    static const std::regex uuid4("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
    EXPECT_TRUE(std::regex_match(answer_text(s), uuid4));
  }
}

TEST(Generated, MathAnswersRecomputed) {
  FakeTokenizer t(FakeTokenizer::words);
  const auto find = make_task("math_find", request(t, 1500, 14));
  std::set<std::string> kinds;
  for (int64_t i = 0; i < 14; ++i) {
    const Sample s = find->sample(i);
    const std::string context = s.record["context"], input = s.record["input"];
    const auto list = nlohmann::json::parse(context.substr(context.find('[')));
    std::multiset<int> all;
    std::map<int, int> distinct;
    for (int v : list) all.insert(v), ++distinct[v];
    std::smatch kind;
    ASSERT_TRUE(std::regex_search(input, kind, std::regex(R"(The (.+) number of)")));
    kinds.insert(kind[1]);
    const std::string k = kind[1];
    const int skip = k.starts_with("second") ? 1 : k.starts_with("third") ? 2 : 0;
    double want;
    if (k == "median") {
      const size_t n = all.size();
      want = (*std::next(all.begin(), long((n - 1) / 2)) + *std::next(all.begin(), long(n / 2))) / 2.0;
    } else {
      want = k.ends_with("largest") ? std::next(distinct.rbegin(), skip)->first
                                    : std::next(distinct.begin(), skip)->first;
    }
    EXPECT_EQ(s.answer[0].get<double>(), want) << k;
  }
  EXPECT_EQ(kinds.size(), 7u);

  const auto calc = make_task("math_calc", request(t, 1500));
  for (int64_t i = 0; i < 3; ++i) {
    const Sample s = calc->sample(i);
    const std::string all = s.record["context"], text = all.substr(all.rfind('\n') + 1);
    std::istringstream in(text);
    int value, operand;
    char op;
    std::vector<int> running;
    for (in >> value; in >> op >> operand;) {
      value += op == '+' ? operand : -operand;
      EXPECT_TRUE(value >= 0 && value <= 99);
      running.push_back(value);
    }
    EXPECT_EQ(s.answer.get<std::vector<int>>(), running);
    EXPECT_GT(running.size(), 50u);
  }
}

TEST(Generated, CodeRunAnswersByRunningTheCode) {
  FakeTokenizer t(FakeTokenizer::words);
  const auto task = make_task("code_run", request(t, 3000, 10));
  static const std::regex form(
      R"(def func_(\d+)\(x\):\n    return (?:func_(\d+)\()?x\)?(?: ([+-]) (\d+))?\n\n)");
  for (int64_t i = 0; i < 10; ++i) {
    const Sample s = task->sample(i);
    const std::string code = s.record["context"], input = s.record["input"];
    std::map<int, std::pair<int, int>> functions;  // number -> called (0: none), addend
    for (std::sregex_iterator it(code.begin(), code.end(), form), end; it != end; ++it)
      functions[std::stoi((*it)[1])] = {
          (*it)[2].matched ? std::stoi((*it)[2]) : 0,
          (*it)[4].matched ? std::stoi((*it)[4]) * ((*it)[3] == "-" ? -1 : 1) : 0};
    EXPECT_EQ(int64_t(functions.size()), s.record["functions"].get<int64_t>());
    std::smatch call;
    ASSERT_TRUE(std::regex_search(input, call, std::regex(R"(func_(\d+)\((-?\d+)\))")));
    int at = std::stoi(call[1]), value = std::stoi(call[2]), steps = 0;
    for (; at; ++steps) {
      ASSERT_TRUE(functions.contains(at));
      value += functions[at].second;
      at = functions[at].first;
    }
    EXPECT_EQ(s.answer[0], value);
    EXPECT_EQ(s.record["chain"], steps);
    EXPECT_EQ(steps, 2 * (i / 2 + 1));
  }
}

TEST(Generated, TooFewTokensNamesTheLeast) {
  FakeTokenizer t(FakeTokenizer::words, true);
  for (const auto& name : generated) {
    try {
      make_task(name, request(t, 10))->sample(0);
      FAIL() << name;
    } catch (const InputError& e) {
      std::smatch least;
      const std::string what = e.what();
      ASSERT_TRUE(std::regex_search(what, least, std::regex(R"(smallest prompt has (\d+))"))) << what;
      EXPECT_EQ(make_task(name, request(t, std::stol(least[1])))->sample(0).tokens, std::stol(least[1]))
          << name;
    }
  }
}

TEST(Generated, PublishedSizesByParameter) {
  FakeTokenizer t(FakeTokenizer::words);
  const TaskRequest r = request(t, 100);  // the token length is not looked at
  const Sample kv = make_task("kv_retrieval", r, {{"pairs", 2500}})->sample(1);
  EXPECT_EQ(nlohmann::json::parse(kv.record["context"].get<std::string>()).size(), 2500u);
  EXPECT_EQ(size_t(kv.tokens), t.encode(kv.prompt).size());
  const Sample key = make_task("passkey", r, {{"lines", 5220}})->sample(0);
  const std::string context = key.record["context"];
  size_t lines = 0;
  for (size_t at = 0; (at = context.find(noise_line, at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines, 5220u);
  EXPECT_EQ(make_task("math_find", r, {{"numbers", 30000}})->sample(0).record["numbers"], 30000);
  EXPECT_EQ(make_task("math_calc", r, {{"numbers", 15000}})->sample(0).answer.size(), 14999u);
  EXPECT_EQ(make_task("code_run", r, {{"functions", 4400}})->sample(2).record["functions"], 4400);
}

TEST(Generated, PerfectAnswersScoreOneAndShuffledOnesZero) {
  FakeTokenizer t(FakeTokenizer::words);
  for (const auto& name : generated) {
    const auto task = make_task(name, request(t, 1500, 7));
    std::vector<Sample> samples;
    for (int64_t i = 0; i < 7; ++i) samples.push_back(task->sample(i));
    for (size_t i = 0; i < 7; ++i) {
      EXPECT_EQ(task->score(samples[i], " " + answer_text(samples[i])).value, 1) << name;
      const std::string other = answer_text(samples[(i + 3) % 7]);
      if (other != answer_text(samples[i])) {
        EXPECT_LT(task->score(samples[i], other).value, 0.1) << name;
      }
      EXPECT_EQ(task->score(samples[i], "").value, 0) << name;
      EXPECT_TRUE(task->score(samples[i], "").error.empty()) << name;
    }
  }
}

TEST(Generated, ProseHaystackFromAFile) {
  const std::string path = testing::TempDir() + "prose.txt";
  std::ofstream(path) << "It was late.  Rain fell\non the \"old\" roof. Nobody spoke! Mr. Smith said "
                         "\"Why?\" 7 dogs ran. The end";
  FakeTokenizer t(FakeTokenizer::words);
  const Sample s =
      make_task("passkey", request(t, 600), {{"haystack", "prose"}, {"haystack_file", path}})->sample(0);
  EXPECT_EQ(t.encode(s.prompt).size(), 600u);
  EXPECT_NE(s.prompt.find("Rain fell on the \"old\" roof."), std::string::npos);
  EXPECT_EQ(s.prompt.find(noise_line), std::string::npos);
  EXPECT_EQ(
      split_sentences("It was late.  Rain fell\non the \"old\" roof. Nobody spoke! No 3.5 here; e.g. this"),
      (std::vector<std::string>{"It was late.", "Rain fell on the \"old\" roof.", "Nobody spoke!",
                                "No 3.5 here; e.g. this"}));
  EXPECT_EQ(make_task("passkey", request(t, 600), {{"haystack", "prose"}, {"haystack_file", path}})
                ->provenance()["sha256"],
            sha256_file(path));
  EXPECT_TRUE(make_task("passkey", request(t, 600))->provenance().is_null());
  EXPECT_THROW(
      make_task("passkey", request(t, 600), {{"haystack", "prose"}, {"haystack_file", path + ".absent"}}),
      InputError);
}

}  // namespace
}  // namespace prefill
