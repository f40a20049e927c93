// Reading experiments: every mistake at once with its place, sweeps, identities. The methods used here are
// the registry's.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/run/experiment.h"

namespace prefill {
namespace {
namespace fs = std::filesystem;

class ExperimentFile : public ::testing::Test {
 protected:
  Experiment read(const std::string& text, bool quick = false) {
    file_ = (fs::temp_directory_path() / str("prefillbench_experiment_", getpid(), ".yaml")).string();
    std::ofstream(file_) << text;
    bad_.clear();
    Experiment e = read_experiment(file_, bad_, quick);
    fs::remove(file_);
    return e;
  }
  std::string all() const {
    std::string out;
    for (const auto& d : bad_) out += d.print().substr(file_.size() + 1) + "\n";
    return out;
  }
  std::string file_;
  Diagnostics bad_;
};

TEST_F(ExperimentFile, EveryMistakeGivesOneMessageWithItsPlace) {
  read(R"(schema: 1
name: bad name
model: no-such-model
bakend: cpu
dtype: float8
workloads:
  - {task: passkye, tokens: 4096}
  - {task: passkey, tokens: many, samples: 0}
methods:
  - name: dens
  - name: streaming
    params: {sinks: 4, local: 0}
    params: {sink: 4}
)");
  EXPECT_EQ(bad_.size(), 11u) << all();
  const std::string text = all();
  for (const char* expected :
       {"2:7: 'name' = 'bad name'", "3:8: model 'no-such-model' was not found",
        "4:1: the experiment has no field 'bakend'; did you mean 'backend'?",
        "5:8: 'dtype' = 'float8' must be one of", "7:12: unknown task 'passkye'; did you mean 'passkey'?",
        "8:29: 'tokens' must be a whole number", "8:44: 'samples' = 0 must be in",
        "10:11: unknown method 'dens'; did you mean 'dense'?",
        "12:14: streaming has no field 'sinks'; did you mean 'sink'?",
        "12:31: 'local' = 0 must be at least 1", "13:5: 'params' is given twice"})
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\nnot in\n" << text;
}

TEST_F(ExperimentFile, YamlPitfallsAreErrors) {
  read(
      "schema: 1\nname: x\nworkloads: [{task: passkey}]\nmethods: [{name: streaming, params: {<<: {sink: "
      "1}}}]\n");
  EXPECT_NE(all().find("merge keys"), std::string::npos) << all();
  read("schema: 1\nname: [x\n");
  ASSERT_FALSE(bad_.empty());
  EXPECT_GT(bad_[0].line, 0);
  read("");
  EXPECT_FALSE(bad_.empty());
  read(
      "schema: 1\nname: x\nmeasure: {check_plans: yes}\nworkloads: [{task: passkey}]\nmethods: [{name: "
      "dense}]\n");
  EXPECT_NE(all().find("'check_plans' must be true or false, not 'yes'"), std::string::npos) << all();
}

const char* kHead =
    "schema: 1\nname: x\nmodel: smollm2-135m-instruct-128k\nworkloads: [{task: passkey, tokens: [2K, "
    "4096]}]\nmethods:\n";

std::vector<std::string> labels(const Experiment& e) {
  std::vector<std::string> out;
  for (const auto& p : e.points) out.push_back(p.label);
  return out;
}

TEST_F(ExperimentFile, GridZipAndAblateExpand) {
  Experiment e = read(str(kHead, "  - {name: streaming, grid: {sink: [1, 2], local: [32, 64]}}\n"));
  ASSERT_TRUE(bad_.empty()) << all();
  EXPECT_EQ(labels(e),
            (std::vector<std::string>{"dense", "streaming sink=1 local=32", "streaming sink=1 local=64",
                                      "streaming sink=2 local=32", "streaming sink=2 local=64"}));
  EXPECT_TRUE(e.points[0].implied) << "dense is added: every round is paired with it";
  ASSERT_EQ(e.workloads.size(), 2u);
  EXPECT_EQ(e.workloads[0].tokens, 2048);
  e = read(str(kHead, "  - {name: streaming, zip: {sink: [1, 2], local: [32, 64]}}\n"));
  EXPECT_EQ(labels(e),
            (std::vector<std::string>{"dense", "streaming sink=1 local=32", "streaming sink=2 local=64"}));
  e = read(str(kHead, "  - {name: streaming, params: {sink: 8}, ablate: {sink: [1, 2], local: [32]}}\n"));
  EXPECT_EQ(labels(e), (std::vector<std::string>{"dense", "streaming sink=8", "streaming sink=1",
                                                 "streaming sink=2", "streaming sink=8 local=32"}));
  read(str(kHead, "  - {name: streaming, zip: {sink: [1, 2], local: [32]}}\n"));
  EXPECT_NE(all().find("go together one by one"), std::string::npos) << all();
  read(str(kHead, "  - {name: streaming, grid: {sink: 4}}\n"));
  EXPECT_NE(all().find("needs a list of values"), std::string::npos) << all();
}

TEST_F(ExperimentFile, AWorkloadListedTwiceIsAMistake) {
  const std::string head = "schema: 1\nname: x\nworkloads:\n  - {task: passkey, tokens: [2K, 4K]}\n",
                    tail = "methods:\n  - name: dense\n";
  for (const char* other :
       {"{task: passkey, tokens: 4096, samples: 6}", "{task: passkey, tokens: 4096, seed: 2}",
        "{task: passkey, tokens: 8K}", "{task: passkey, tokens: 4096, template: chat}",
        "{task: kv_retrieval, tokens: 4096}"}) {
    read(str(head, "  - ", other, "\n", tail));
    EXPECT_TRUE(bad_.empty()) << all();
  }
  read(str(head, "  - {task: passkey, params: {haystack: noise}, tokens: [8K, 4096]}\n", tail));
  EXPECT_EQ(all(),
            "5:61: workload passkey@4096 is already on line 4 with the same parameters, samples and seed: "
            "remove one\n");
}

TEST_F(ExperimentFile, AFolderIsTheSameHoweverItIsSpelled) {
  const fs::path folder = fs::temp_directory_path() / str("prefillbench_data_", getpid());
  fs::create_directory(folder);
  const auto with = [&](const std::string& spelled) {
    return str("  - {task: infinitebench/passkey, params: {folder: ", spelled, "}}\n");
  };
  const std::string head = "schema: 1\nname: x\nworkloads:\n", tail = "methods:\n  - name: dense\n",
                    name = folder.filename().string();
  read(head + with(folder.string()) + with("/dev/../" + folder.string() + "/") + with(name + "/../" + name) +
       tail);
  EXPECT_EQ(bad_.size(), 2u) << all();  // as twins of the first
  read(head + with(folder.string()) + with("/dev") + tail);
  EXPECT_TRUE(bad_.empty()) << all();
  fs::remove(folder);
}

TEST_F(ExperimentFile, QuickShortensEveryWorkload) {
  const std::string text = R"(schema: 1
name: long
workloads:
  - {task: passkey, tokens: [8192, 16384], samples: 20}
  - {task: kv_retrieval, tokens: 8192, samples: 20}
quick: {tokens: 1024, samples: 2}
methods:
  - name: streaming
)";
  EXPECT_EQ(read(text).workloads.size(), 3u);
  EXPECT_EQ(read(text).name, "long");
  const Experiment e = read(text, true);
  EXPECT_TRUE(bad_.empty()) << all();
  EXPECT_EQ(e.name, "long-quick");
  ASSERT_EQ(e.workloads.size(), 2u) << "two lengths of one task become one";
  for (const WorkloadSpec& w : e.workloads) {
    EXPECT_EQ(w.tokens, 1024);
    EXPECT_EQ(w.count, 2);
  }
}

TEST_F(ExperimentFile, QuickNeedsItsBlock) {
  const std::string text = "schema: 1\nname: x\nworkloads: [{task: passkey}]\nmethods: [{name: dense}]\n";
  read(text, true);
  EXPECT_NE(all().find("no 'quick' block"), std::string::npos) << all();
  read(text + "quick: {tokens: 4096, sample: 1}\n");
  EXPECT_NE(all().find("quick has no field 'sample'; did you mean 'samples'?"), std::string::npos) << all();
}

TEST_F(ExperimentFile, SpellingOfANumberDoesNotChangeTheRun) {
  const Experiment a = read(str(kHead, "  - {name: random, params: {density: 0.50}}\n"));
  ASSERT_TRUE(bad_.empty()) << all();
  const Experiment b = read(str(kHead, "  - {name: random, params: {density: 5e-1}}\n"));
  EXPECT_EQ(a.points[1].params.canonical, b.points[1].params.canonical);
  const Experiment c = read(str(kHead, "  - {name: random, grid: {density: [0.5, .5, 0.25]}}\n"));
  EXPECT_EQ(c.points.size(), 3u) << "dense, 0.5, 0.25";
  ASSERT_EQ(c.pruned.size(), 1u);
  EXPECT_EQ(c.pruned[0].reason, "line 6 has the same parameters as 'random density=0.5' of line 6");
}

}  // namespace
}  // namespace prefill
