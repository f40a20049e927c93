// The store's promises: torn lines are cut, whole ones kept, nothing half-written counts as done.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/results/store.h"

namespace prefill {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

class Store : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / str("prefillbench_store_", getpid(), "_",
                                            ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string path(const std::string& name) const { return (root_ / name).string(); }
  static json record(const std::string& sample, const std::string& status = "ok", double score = 1) {
    return {{"schema", 1},
            {"sample", sample},
            {"status", status},
            {"score", score},
            {"time", "2026-01-01T00:00:00Z"}};
  }
  static json spec() { return {{"id", "abc"}, {"workload", {{"count", 2}}}}; }
  static json provenance(const std::string& hardware = "box") { return {{"hardware", hardware}}; }
  fs::path root_;
};

TEST_F(Store, TornLineIsCutAndTheNextRecordStandsAlone) {
  const std::string file = path("samples.jsonl");
  {
    SampleLog log(file);
    log.append(record("a"));
    log.append(record("b"));
  }
  const std::string whole = read_file(file);
  for (size_t keep = whole.size() - 1; keep > whole.size() / 2 + 1; keep -= 7) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << whole.substr(0, keep);
    SampleLog log(file);
    EXPECT_EQ(log.settled(), std::set<std::string>{"a"}) << keep;
    log.append(record("b"));
    EXPECT_EQ(read_file(file), whole);
  }
}

TEST_F(Store, DamagedWholeLineIsNamed) {
  const std::string file = path("samples.jsonl");
  std::ofstream(file) << record("a").dump() << "\nnonsense\n";
  try {
    SampleLog log(file);
    FAIL();
  } catch (const InputError& e) {
    EXPECT_NE(std::string(e.what()).find("samples.jsonl:2:"), std::string::npos) << e.what();
  }
}

TEST_F(Store, FailedSamplesAreTriedAgainAndUnsupportedOnesAreNot) {
  SampleLog log(path("samples.jsonl"));
  log.append(record("a", "failed"));
  log.append(record("b", "unsupported"));
  EXPECT_EQ(log.settled(), std::set<std::string>{"b"});
  log.append(record("a"));
  EXPECT_EQ(log.settled().size(), 2u);
}

TEST_F(Store, NumbersThatAreNotFiniteAreRefused) {
  SampleLog log(path("samples.jsonl"));
  EXPECT_THROW(log.append(record("a", "ok", std::nan(""))), std::logic_error);
  EXPECT_EQ(read_file(path("samples.jsonl")), "");
}

TEST_F(Store, SummaryComesLastAndOnlyWhenEverySampleIsSettled) {
  ResultStore store(root_.string(), "x", "");
  SampleLog& log = store.open("abc", spec(), provenance());
  log.append(record("a"));
  EXPECT_FALSE(store.finish("abc", {"a", "b"}));
  EXPECT_FALSE(store.complete("abc"));
  log.append(record("b", "ok", 0));
  EXPECT_TRUE(store.finish("abc", {"a", "b"}));
  EXPECT_TRUE(store.complete("abc"));
  const json summary = json::parse(read_file(store.folder("abc") + "/summary.json"));
  EXPECT_EQ(summary.at("score"), 0.5);
}

TEST_F(Store, SecondWriterIsKeptOutAndAnotherMachineToo) {
  {
    ResultStore store(root_.string(), "x", "");
    store.open("abc", spec(), provenance());
    EXPECT_THROW(ResultStore(root_.string(), "x", ""), InputError);
    EXPECT_NO_THROW(ResultStore(root_.string(), "x", "1-of-2"));
  }
  ResultStore again(root_.string(), "x", "");
  EXPECT_THROW(again.open("abc", spec(), provenance("another box")), InputError);
}

TEST_F(Store, KilledWriterLosesAtMostTheRecordInFlight) {
  const std::string file = path("samples.jsonl");
  int pipe_[2];
  ASSERT_EQ(pipe(pipe_), 0);
  const pid_t child = fork();
  if (child == 0) {
    SampleLog log(file);
    for (int i = 0;; ++i) {
      log.append(record(str("s", i)));
      if (write(pipe_[1], "x", 1) != 1) _exit(1);
    }
  }
  char c;
  int acknowledged = 0;
  while (acknowledged < 50 && read(pipe_[0], &c, 1) == 1) ++acknowledged;
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  SampleLog log(file);
  for (int i = 0; i < acknowledged; ++i) EXPECT_TRUE(log.settled().count(str("s", i))) << i;
}

TEST_F(Store, MergeTakesTheNewestSettledRecordOfEachSample) {
  for (const char* shard : {"one", "two"}) {
    ResultStore store(path(shard), "x", "");
    SampleLog& log = store.open("abc", spec(), provenance());
    log.append(record(std::string(shard) == "one" ? "a" : "b"));
  }
  {
    ResultStore store(path("three"), "x", "");
    json newer = record("a", "failed");
    newer["time"] = "2026-02-01T00:00:00Z";
    store.open("abc", spec(), provenance()).append(newer);
  }
  const auto merged = merge_results({path("one"), path("two"), path("three")}, path("all"));
  ASSERT_EQ(merged.size(), 1u);
  EXPECT_EQ(merged[0].run, "x/abc");
  EXPECT_EQ(merged[0].settled, 2);
  EXPECT_EQ(merged[0].wanted, 2);
  EXPECT_EQ(merged[0].folders, 3u);
  EXPECT_TRUE(merged[0].complete);
  EXPECT_TRUE(fs::exists(path("all") + "/x/abc/summary.json"));
  EXPECT_EQ(read_samples(path("all") + "/x/abc").size(), 2u);
  EXPECT_THROW(merge_results({path("nothing")}, path("all")), InputError);
}

TEST_F(Store, IdentityIsOfTypedValues) {
  EXPECT_EQ(run_id(json{{"gamma", 0.9}, {"a", 1}}), run_id(json{{"a", 1}, {"gamma", 9e-1}}));
  EXPECT_NE(run_id(json{{"gamma", 0.9}}), run_id(json{{"gamma", 0.95}}));
  EXPECT_EQ(run_id(json::object()).size(), 16u);
}

}  // namespace
}  // namespace prefill
