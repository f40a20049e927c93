#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/report/compare.h"
#include "core/report/report.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A results folder under the test's own temporary folder.
class Results : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) /
            (std::string("report_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  struct Run {
    std::string side = "a", id = "00000000000000a1", method = "flexprefill", task = "passkey",
                hardware = "h1";
    json params = {{"gamma", 0.9}};
    int64_t tokens = 4096;
    int schema = 1;
    bool complete = true;
    std::string profile = "official";
    std::string label = "";  ///< of the method; by default its name and parameters as JSON
  };

  static json sample(int i, double score, double seconds, double dense_seconds = 2.0) {
    return {{"schema", 1},
            {"sample", "passkey-" + std::to_string(i)},
            {"status", "ok"},
            {"score", score},
            {"prediction", score == 1 ? "71432" : "no"},
            {"answer", "71432"},
            {"tokens", 4096},
            {"ttft_s", {seconds + 1, seconds + 1.01}},
            {"attention_s", {seconds, seconds * 1.01}},
            {"stages_s", {{"attend", seconds}}},
            {"density", 0.3},
            {"kernels", {"k"}},
            {"a key of tomorrow", 1},
            {"dense",
             {{"ttft_s", {dense_seconds + 1, dense_seconds + 1.01}},
              {"attention_s", {dense_seconds, dense_seconds * 1.01}},
              {"score", 1.0}}}};
  }

  static std::string lines(const std::vector<json>& records) {
    std::string out;
    for (const json& r : records) out += r.dump() + "\n";
    return out;
  }

  fs::path write(const Run& r, const std::string& samples) {
    const fs::path folder = root_ / r.side / "exp" / r.id;
    fs::create_directories(folder);
    const json spec = {{"schema", r.schema},
                       {"id", r.id},
                       {"experiment", "exp"},
                       {"method",
                        {{"name", r.method},
                         {"version", 1},
                         {"params", r.params},
                         {"label", r.label.empty() ? r.method + " " + r.params.dump() : r.label}}},
                       {"model", {{"name", "tiny"}, {"sha256", "ab"}}},
                       {"workload",
                        {{"task", r.task},
                         {"version", 1},
                         {"params", json::object()},
                         {"tokens", r.tokens},
                         {"count", 10},
                         {"seed", 1},
                         {"profile", r.profile}}},
                       {"backend", "cpu"},
                       {"dtype", "float32"},
                       {"threads", 2}};
    std::ofstream(folder / "spec.json") << spec.dump();
    std::ofstream(folder / "provenance.json")
        << json{{"hardware", r.hardware}, {"cpu_name", "CPU " + r.hardware}}.dump();
    std::ofstream(folder / "samples.jsonl") << samples;
    if (r.complete) std::ofstream(folder / "summary.json") << R"({"schema":1,"n":10,"ok":10})";
    return folder;
  }

  std::string side(const std::string& name) const { return (root_ / name).string(); }
  std::vector<RunData> load(const std::string& name) const { return load_runs({side(name)}, ""); }

  std::string error_of(const std::string& argument) const {
    try {
      load_runs({argument}, side("a"));
    } catch (const InputError& e) {
      return e.what();
    }
    return "";
  }

  fs::path root_;
};

TEST_F(Results, ReadsWhatTheRunnerWrites) {
  write({}, lines({sample(0, 1, 1.0), sample(1, 0, 1.1)}));
  const auto runs = load("a");
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].method, "flexprefill");
  EXPECT_EQ(runs[0].tokens, 4096);
  EXPECT_TRUE(runs[0].complete);
  EXPECT_EQ(runs[0].hardware, "h1");
  ASSERT_EQ(runs[0].samples.size(), 2u);
  const SampleResult& s = runs[0].samples.at("passkey-1");
  EXPECT_TRUE(s.ok());
  EXPECT_EQ(s.score, 0);
  EXPECT_EQ(s.time.attention_s.size(), 2u);
  EXPECT_TRUE(s.has_dense);
  EXPECT_EQ(s.dense_score, 1);
}

TEST_F(Results, LastOkLineWins) {
  json failed = {{"schema", 1}, {"sample", "passkey-0"}, {"status", "failed"}, {"why", "boom"}};
  json failed_again = failed;
  failed_again["why"] = "bang";
  write({.id = "a1"}, lines({failed, sample(0, 1, 1.0), sample(0, 0, 1.0), failed}));
  write({.id = "a2", .params = {{"gamma", 0.8}}}, lines({failed, failed_again}));
  const auto runs = load("a");
  EXPECT_TRUE(runs[0].samples.at("passkey-0").ok());
  EXPECT_EQ(runs[0].samples.at("passkey-0").score, 0);
  EXPECT_EQ(runs[1].samples.at("passkey-0").why, "bang");
}

TEST_F(Results, TornLinesAreSkippedAndCounted) {
  const std::string whole = lines({sample(0, 1, 1.0), sample(1, 1, 1.0)});
  const std::string one = lines({sample(0, 1, 1.0)});
  for (size_t cut = one.size() + 1; cut + 1 < whole.size(); cut += 37) {
    write({.complete = false}, whole.substr(0, cut));
    const auto runs = load("a");
    EXPECT_EQ(runs[0].samples.size(), 1u) << cut;
    EXPECT_EQ(runs[0].torn_lines, 1) << cut;
  }
  const Report report = make_report({side("a")}, "", 0.02);
  const std::string text = terminal_text(report);
  EXPECT_NE(text.find("torn line"), std::string::npos);
  EXPECT_NE(text.find("partial (`run` continues): passkey, 4096 tokens, 1 of 10"), std::string::npos);
}

TEST_F(Results, ShardLogsOfOneRunAreReadTogether) {
  const fs::path folder = write({}, lines({sample(0, 1, 1.0)}));
  std::ofstream(folder / "samples-2-of-2.jsonl") << lines({sample(1, 1, 1.0)});
  EXPECT_EQ(load("a")[0].samples.size(), 2u);
}

TEST_F(Results, RefusesWhatItCanNotRead) {
  write({.schema = 2}, "");
  EXPECT_NE(error_of(side("a")).find("newer than this program reads"), std::string::npos);
  const fs::path folder = write({}, "");
  std::ofstream(folder / "spec.json") << "{\"schema\": 1, ";
  EXPECT_NE(error_of(side("a")).find("spec.json: not a JSON object"), std::string::npos);
  std::ofstream(folder / "spec.json")
      << R"({"schema":1,"method":{"name":"dense"},"model":{},"workload":{"task":7}})";
  EXPECT_NE(error_of(side("a")).find("\"task\" has an unexpected type"), std::string::npos);
  EXPECT_NE(error_of(side("nowhere")).find("no such folder"), std::string::npos);
  fs::create_directories(root_ / "empty");
  EXPECT_NE(error_of(side("empty")).find("no run in this folder"), std::string::npos);
}

TEST_F(Results, TableNamesTheUsualSettingsOfAMethodOnce) {
  const std::string long_path = "lookup=models/a-model-of-a-long-name/shareprefill.json";
  int n = 0;
  for (const char* rest : {" block=64", " block=64 threshold=0.8", " block=64 mode=two words", " block=32"}) {
    ++n;
    write({.id = "b" + std::to_string(n),
           .method = "shareprefill",
           .params = {{"t", n}},
           .label = "shareprefill " + long_path + rest},
          lines({sample(0, 1, 1.0 + 0.1 * n)}));
  }
  write({.id = "a4", .method = "anchor", .params = {{"t", 4}}, .label = "anchor theta=12"},
        lines({sample(0, 1, 1.3)}));
  const std::string text = terminal_text(make_report({side("a")}, "", 0.02));
  EXPECT_NE(text.find("  shareprefill threshold=0.8  "), std::string::npos) << text;
  EXPECT_NE(text.find("  shareprefill block=32  "), std::string::npos) << text;
  EXPECT_NE(text.find("  shareprefill mode=two words  "), std::string::npos) << text;
  EXPECT_NE(text.find("  shareprefill, where not said otherwise: " + long_path + " block=64\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("  anchor theta=12  "), std::string::npos) << text;  // its only point keeps its setting
}

TEST_F(Results, FiguresNameAFileByItsNameAlone) {
  const std::string digest(64, 'a');
  write({.id = "b1", .method = "minference", .params = {{"pattern_file", "heads.json sha256:" + digest}}},
        lines({sample(0, 1, 1.0)}));
  write({.id = "b2", .method = "minference", .params = {{"pattern_file", "models/other/best.json"}}},
        lines({sample(0, 1, 1.0)}));
  write({.id = "b3", .method = "minference", .params = {{"pattern_file", ""}}}, lines({sample(0, 1, 1.0)}));
  std::set<std::string> shown;
  const Report report = make_report({side("a")}, "", 0.02);
  for (const PanelPoint& p : report.panels.at(0).points) shown.insert(p.short_label);
  EXPECT_EQ(shown, (std::set<std::string>{"", "best", "heads"}));
}

TEST_F(Results, RunIdsAreFoundByUniquePrefix) {
  write({.id = "abcd000000000001"}, "");
  write({.id = "abcd000000000002", .params = {{"gamma", 0.8}}}, "");
  EXPECT_EQ(load_runs({"abcd000000000001"}, side("a")).size(), 1u);
  EXPECT_NE(error_of("abcd").find("2 runs begin with this id"), std::string::npos);
  EXPECT_NE(error_of("beef").find("no run of that id"), std::string::npos);
}

TEST_F(Results, DifferentMachinesNeverShareAPanel) {
  write({.id = "a1", .hardware = "h1"}, lines({sample(0, 1, 1.0)}));
  write({.id = "a2", .hardware = "h2"}, lines({sample(0, 1, 9.0)}));
  const Report report = make_report({side("a")}, "", 0.02);
  ASSERT_EQ(report.panels.size(), 2u);
  EXPECT_NE(report.panels[0].hardware, report.panels[1].hardware);
}

TEST_F(Results, ScoresOfTwoProfilesAreNotPooled) {
  write({.id = "a1"}, lines({sample(0, 0, 1.0), sample(1, 0, 1.0)}));
  write({.id = "a2", .profile = "flexprefill"}, lines({sample(0, 1, 1.0), sample(1, 1, 1.0)}));
  const Report report = make_report({side("a")}, "", 0.02);
  ASSERT_EQ(report.panels.size(), 2u);
  std::map<std::string, double> scores;
  for (const Panel& panel : report.panels)
    for (size_t i = 0; i < panel.points.size(); ++i)
      if (!panel.points[i].baseline) scores[panel.tasks.at(0)] = panel.slices.at(0).stats[i].score.value;
  EXPECT_DOUBLE_EQ(scores.at("passkey"), 0);
  EXPECT_DOUBLE_EQ(scores.at("passkey profile=flexprefill"), 1);
  EXPECT_NE(pareto_csv(report).find("passkey profile=flexprefill"), std::string::npos);
}

// Dense was not run on its own: it is drawn from the paired baselines. Speed-ups are per sample, so a machine
// that slows down by half over the run does not blur them.
TEST_F(Results, DenseFromPairsAndPairedSpeedups) {
  std::vector<json> records;
  for (int i = 0; i < 8; ++i) records.push_back(sample(i, i < 6, 1.0 + 0.1 * i, 2 * (1.0 + 0.1 * i)));
  write({}, lines(records));
  const Report report = make_report({side("a")}, "", 0.02);
  const Panel& panel = report.panels.at(0);
  ASSERT_EQ(panel.points.size(), 2u);
  EXPECT_TRUE(panel.points[0].baseline);
  EXPECT_TRUE(panel.points[0].from_pairs);
  EXPECT_NEAR(panel.slices[0].stats[0].attention.value, 2 * 1.35 * 1.005, 1e-9);
  const PointStats& s = panel.slices[0].stats[1];
  EXPECT_NEAR(s.speedup_attention.value, 2.0, 1e-9);
  EXPECT_NEAR(s.speedup_attention.lo, 2.0, 1e-9);
  EXPECT_NEAR(s.score_vs_dense.value, -0.25, 1e-12);
  EXPECT_EQ(s.changed, 2);
}

TEST_F(Results, BreakEvenIsInterpolatedOnLogLength) {
  for (auto [tokens, speedup, id] : {std::tuple(1024, 0.5, "a1"), std::tuple(4096, 1.5, "a2")}) {
    std::vector<json> records;
    for (int i = 0; i < 5; ++i) records.push_back(sample(i, 1, 1.0, speedup));
    write({.id = id, .tokens = tokens}, lines(records));
  }
  const Report report = make_report({side("a")}, "", 0.02);
  bool seen = false;
  for (const BreakEven& b : report.break_evens) {
    if (b.axis != Axis::attention) continue;
    seen = true;
    EXPECT_EQ(b.kind, BreakEven::crosses);
    EXPECT_NEAR(b.tokens, 2048, 1e-6);
  }
  EXPECT_TRUE(seen);
}

class Compare : public Results {
 protected:
  /// 10 samples; `wrong` of them wrong; attention `seconds` with a little spread.
  void write_side(const std::string& name, int wrong, double seconds, const std::string& hardware = "h1",
                  double dense = 2.0) {
    std::vector<json> records;
    for (int i = 0; i < 10; ++i)
      records.push_back(sample(i, i >= wrong, seconds * (1 + 0.002 * ((i * 7) % 5)), dense));
    write({.side = name, .hardware = hardware}, lines(records));
  }
  Comparison compare(bool across_hardware = false) {
    return compare_runs(load("a"), load("b"),
                        {.score_margin = 0.02, .time_margin = 0.03, .across_hardware = across_hardware});
  }
};

TEST_F(Compare, TheSameResultsAreTheSame) {
  write_side("a", 2, 1.0);
  write_side("b", 2, 1.0);
  const Comparison c = compare();
  ASSERT_EQ(c.points.size(), 1u);
  EXPECT_EQ(c.points[0].pairs, 10);
  EXPECT_EQ(c.points[0].verdict, Verdict::same);
  EXPECT_EQ(c.points[0].ttft.verdict, Verdict::same);
  EXPECT_EQ(c.points[0].attention.verdict, Verdict::same);
  EXPECT_TRUE(c.changes.empty());
  EXPECT_FALSE(c.worse());
}

TEST_F(Compare, PlantedDifferencesAreFound) {
  write_side("a", 0, 1.0);
  write_side("b", 7, 1.3);
  const Comparison c = compare();
  EXPECT_EQ(c.points[0].verdict, Verdict::worse);
  EXPECT_NEAR(c.points[0].difference.value, -0.7, 1e-12);
  EXPECT_NEAR(c.points[0].p, 2.0 / 128, 1e-12);
  EXPECT_EQ(c.points[0].attention.verdict, Verdict::worse);
  EXPECT_NEAR(c.points[0].attention.ratio.value, 1.3, 1e-6);
  EXPECT_EQ(std::count_if(c.changes.begin(), c.changes.end(),
                          [](const Change& x) { return x.kind == Change::lost; }),
            7);
  EXPECT_TRUE(c.worse());
  const Comparison back = compare_runs(load("b"), load("a"), {});
  EXPECT_EQ(back.points[0].verdict, Verdict::better);
  EXPECT_EQ(back.points[0].attention.verdict, Verdict::better);
  EXPECT_FALSE(back.worse());
}

// Perplexity 20 -> 22: the scores differ by 0.0045, less than the margin, and by 9 %.
TEST_F(Compare, PerplexitiesAreJudgedInProportion) {
  for (const auto& [side, perplexity] : {std::pair("a", 20.0), std::pair("b", 22.0), std::pair("c", 20.02)}) {
    std::vector<json> records;
    for (int i = 0; i < 10; ++i) {
      records.push_back(sample(i, 1 / (perplexity + 0.001 * i), 1.0));
      records.back()["metric"] = "1/perplexity";
      records.back()["dense"]["score"] = 1 / (20 + 0.001 * i);
    }
    write({.side = side, .task = "perplexity"}, lines(records));
  }
  EXPECT_EQ(compare().points[0].verdict, Verdict::worse);
  EXPECT_EQ(compare_runs(load("a"), load("c"), {.score_margin = 0.02}).points[0].verdict, Verdict::same);
  const auto against_dense = [&](const char* name) {
    return make_report({side(name)}, "", 0.02).panels.at(0).slices.at(0).stats.at(1).verdict;
  };
  EXPECT_EQ(against_dense("b"), Verdict::worse);
  EXPECT_EQ(against_dense("c"), Verdict::same);
}

TEST_F(Compare, OneFlipInTenIsUnclear) {
  write_side("a", 0, 1.0);
  write_side("b", 1, 1.0);
  EXPECT_EQ(compare().points[0].verdict, Verdict::unclear);
}

TEST_F(Compare, TimesOfDifferentMachinesAreRefused) {
  write_side("a", 0, 1.0, "h1");
  write_side("b", 0, 3.0, "h2");
  const Comparison c = compare();
  EXPECT_FALSE(c.points[0].times_compared);
  EXPECT_NE(c.points[0].times_refused.find("different machines"), std::string::npos);
  EXPECT_FALSE(c.worse());
  EXPECT_NE(terminal_text(c).find("--across-hardware"), std::string::npos);
  EXPECT_EQ(compare(true).points[0].attention.verdict, Verdict::worse);
}

// The whole machine is 20 % slower in B: the method is not.
TEST_F(Compare, DriftOfTheMachineCancelsAgainstDense) {
  write_side("a", 0, 1.0, "h1", 2.0);
  write_side("b", 0, 1.2, "h1", 2.4);
  const Comparison c = compare();
  EXPECT_EQ(c.points[0].attention.verdict, Verdict::worse);
  EXPECT_EQ(c.points[0].attention.verdict_to_dense, Verdict::same);
}

TEST_F(Compare, ASampleThatNoLongerWorksIsWorse) {
  write_side("a", 0, 1.0);
  std::vector<json> records;
  for (int i = 0; i < 9; ++i) records.push_back(sample(i, 1, 1.0));
  records.push_back(
      {{"schema", 1}, {"sample", "passkey-9"}, {"status", "out_of_memory"}, {"why", "too big"}});
  write({.side = "b"}, lines(records));
  const Comparison c = compare();
  ASSERT_EQ(c.changes.size(), 1u);
  EXPECT_EQ(c.changes[0].kind, Change::broken);
  EXPECT_TRUE(c.worse());
}

TEST_F(Compare, SamplesOfAnotherFileAreOtherSamples) {
  for (const char* side : {"a", "b"}) {
    const fs::path folder = write({.side = side}, lines({sample(0, 1, 1.0)}));
    json spec = json::parse(std::ifstream(folder / "spec.json"));
    spec["workload"]["data"] = {{"file", "book.txt"}, {"sha256", side}};
    std::ofstream(folder / "spec.json") << spec;
  }
  EXPECT_THROW(compare(), InputError);
}

TEST_F(Compare, NothingInCommonIsAnError) {
  write({.side = "a", .tokens = 4096}, lines({sample(0, 1, 1.0)}));
  write({.side = "b", .tokens = 8192}, lines({sample(0, 1, 1.0)}));
  EXPECT_THROW(compare(), InputError);
}

TEST_F(Compare, OneSettingOnEachSidePairsEvenWhenTheyDiffer) {
  write({.side = "a"}, lines({sample(0, 1, 1.0), sample(1, 1, 1.0)}));
  write({.side = "b", .method = "minference", .params = json::object()},
        lines({sample(0, 1, 1.0), sample(1, 1, 1.0)}));
  const Comparison c = compare();
  ASSERT_EQ(c.points.size(), 1u);
  EXPECT_NE(c.points[0].label.find(" -> minference"), std::string::npos);
}

}  // namespace
}  // namespace prefill
