// Files that methods read: the published MInference patterns and SharePrefill lookups, and own artefacts.
#include "methods/parts/artifacts.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "core/base/text.h"
#include "methods/parts/minference_patterns.h"
#include "methods/parts/share_clusters.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;

class MethodFiles : public testing::Test {
 protected:
  MethodFiles()
      : path_((fs::temp_directory_path() /
               str("prefill_", testing::UnitTest::GetInstance()->current_test_info()->name(), ".json"))
                  .string()) {}
  ~MethodFiles() override { fs::remove(path_); }
  void put(const std::string& text) { write_file_atomically(path_, text); }
  template <class F>
  void refused(const std::string& text, const std::string& why, F read) {
    put(text);
    try {
      read();
      FAIL() << "accepted: " << text;
    } catch (const InputError& e) {
      EXPECT_NE(std::string(e.what()).find(path_), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(why), std::string::npos)
          << "'" << why << "' is not in: " << e.what();
    }
  }
  std::string path_;
  const ModelShape model_{"toy", 2, 4, 2, 64};
};

TEST_F(MethodFiles, PublishedHeadPatterns) {
  // The form of the *_kv_out_*.json files: one object per layer, head index as text.
  put(R"([{"0": ["vertical_and_slash", 1000, 6096, 336521.1], "3": ["stream_llm", 100, 800, 0.9]},
          {"1": ["block_sparse", 100, 1, 1]}])");
  const auto p = read_head_patterns(path_, model_, {HeadPattern::vertical_slash, 11, 22});
  ASSERT_EQ(p.size(), 2u);
  ASSERT_EQ(p[0].size(), 4u);
  EXPECT_EQ(p[0][0].kind, HeadPattern::vertical_slash);
  EXPECT_EQ(p[0][0].first, 1000);
  EXPECT_EQ(p[0][0].second, 6096);
  EXPECT_EQ(p[0][3].kind, HeadPattern::stream);
  EXPECT_EQ(p[0][3].second, 800);
  EXPECT_EQ(p[1][1].kind, HeadPattern::block_sparse);
  EXPECT_EQ(p[1][0].first, 11) << "a head that the file leaves out has the fallback";
}

TEST_F(MethodFiles, HeadPatternsThatDoNotFit) {
  auto read = [&] { read_head_patterns(path_, model_, {}); };
  refused("[{}]", "1 layers, but 'toy' has 2", read);
  refused(R"([{"4": ["stream_llm", 1, 1, 1]}, {}])", "head '4'", read);
  refused(R"([{"0": ["stream", 1, 1, 1]}, {}])", "did you mean 'stream_llm'", read);
  refused(R"([{}, {"2": ["stream_llm", -1, 1, 1]}])", "layer 1, head 2", read);
  refused(R"([{}, {"2": 7}])", "expected [pattern", read);
  refused("{}", "list", read);
  refused("[{}", "not valid JSON", read);
}

TEST_F(MethodFiles, ArtifactsBelongToAModel) {
  std::vector<std::vector<HeadPattern>> patterns(2, std::vector<HeadPattern>(4));
  patterns[1][2] = {HeadPattern::stream, 7, 9, 0.5};
  write_artifact(path_, {"minference", model_, "abc", {{"tokens", 100}}, write_head_patterns(patterns)});
  const auto back = read_head_patterns(path_, model_, {});
  EXPECT_EQ(back[1][2].kind, HeadPattern::stream);
  EXPECT_EQ(back[1][2].second, 9);
  auto message = [&](const ModelShape& model) -> std::string {
    try {
      read_head_patterns(path_, model, {});
    } catch (const InputError& e) {
      return e.what();
    }
    return "accepted";
  };
  ModelShape renamed = model_;
  renamed.id = "renamed";
  EXPECT_EQ(message(renamed), "accepted");
  ModelShape wide = model_;
  wide.head_dim = 128;
  EXPECT_NE(message(wide).find("64 head_dim"), std::string::npos) << message(wide);
  write_artifact(path_, {"shareprefill", model_, "abc", {}, {}});
  EXPECT_NE(message(model_).find("made for method 'shareprefill'"), std::string::npos) << message(model_);
}

TEST_F(MethodFiles, ArtifactsBelongToWeights) {
  const std::string ours(64, 'a'), others(64, 'b');
  const auto read_as = [&](const std::string& fingerprint) -> std::string {
    ModelShape model = model_;
    model.id = "reader";
    model.fingerprint = fingerprint;
    try {
      read_head_patterns(path_, model, {});
    } catch (const InputError& e) {
      return e.what();
    }
    return "accepted";
  };
  const auto write_of = [&](const std::string& fingerprint) {
    ModelShape model = model_;
    model.fingerprint = fingerprint;
    std::vector<std::vector<HeadPattern>> patterns(2, std::vector<HeadPattern>(4));
    write_artifact(path_, {"minference", model, "abc", {}, write_head_patterns(patterns)});
  };
  write_of(ours);
  EXPECT_NE(read_file(path_).find(ours), std::string::npos);
  EXPECT_EQ(read_as(ours), "accepted");
  EXPECT_EQ(read_as(""), "accepted") << "a reader that does not know its weights goes by the shape";
  const std::string said = read_as(others);
  for (const std::string& part : {path_, std::string("'toy' (fingerprint aaaaaaaaaaaa)"),
                                  std::string("'reader' has the same shape but other weights (bbbbbbbbbbbb)"),
                                  std::string("prefillbench calibrate minference")})
    EXPECT_NE(said.find(part), std::string::npos) << "'" << part << "' is not in: " << said;
  EXPECT_EQ(said.find('\n'), std::string::npos) << "one line";
  write_of("");
  EXPECT_EQ(read_file(path_).find("fingerprint"), std::string::npos);
  EXPECT_EQ(read_as(others), "accepted") << "a file that does not say its weights goes by the shape";
}

TEST_F(MethodFiles, ReleasedLookup) {
  put(R"({"clusters": {"9": [[0, 1], [1, 2]], "2": [[0, 0]], "5": [[1, 0], [1, 1]]}, "shared_clusters": ["9"]})");
  const HeadClusters listed = read_head_clusters(path_, model_, false);
  EXPECT_EQ(listed.clusters, 1);
  EXPECT_EQ(listed.listed_clusters, 3);
  EXPECT_EQ(listed.sharing_heads, 2);
  EXPECT_EQ(listed.cluster_of[0][1], listed.cluster_of[1][2]);
  EXPECT_EQ(listed.cluster_of[1][0], -1);
  const HeadClusters all = read_head_clusters(path_, model_, true);
  EXPECT_EQ(all.clusters, 2) << "a cluster of one head has nobody to share with";
  EXPECT_EQ(all.cluster_of[0][0], -1);
  EXPECT_EQ(all.cluster_of[1][0], all.cluster_of[1][1]);
  auto read = [&] { read_head_clusters(path_, model_, false); };
  refused(R"({"clusters": {"9": [[0, 4]]}, "shared_clusters": ["9"]})", "head 4", read);
  refused(R"({"clusters": {"9": [[0, 1], [0, 1]]}, "shared_clusters": ["9"]})", "in two clusters", read);
  refused(R"({"clusters": {"9": [[0, 1]]}, "shared_clusters": ["8"]})", "no cluster", read);
  refused(R"({"clusters": [1]})", "expected", read);
}

TEST_F(MethodFiles, BestPivotsOfALookup) {
  auto file = [](const char* pivots) {
    return str(R"({"clusters": {"9": [[0, 1], [1, 2]], "2": [[0, 0]], "5": [[1, 0], [1, 1]]}, )",
               R"("shared_clusters": ["9"], "best_pivots": )", pivots, "}");
  };
  put(file(R"({"5": [1, 1], "2": [0, 0], "9": [1, 2]})"));
  const HeadClusters all = read_head_clusters(path_, model_, true);
  ASSERT_EQ(all.best_pivots.size(), 2u);
  EXPECT_EQ(all.best_pivots[size_t(all.cluster_of[0][1])], (std::pair{1, 2}));
  EXPECT_EQ(all.best_pivots[size_t(all.cluster_of[1][0])], (std::pair{1, 1}));
  EXPECT_EQ(read_head_clusters(path_, model_, false).best_pivots, (std::vector{std::pair{1, 2}}));
  auto read = [&] { read_head_clusters(path_, model_, false); };
  refused(file(R"({"5": [1, 1], "2": [0, 0], "9": [1, 1]})"),
          "best_pivots, cluster '9': layer 1, head 1 is not in that cluster", read);
  refused(file(R"({"5": [1, 1], "2": [0, 0], "9": [2, 1]})"), "best_pivots, cluster '9': layer 2", read);
  refused(file(R"({"5": [1, 1], "2": [0, 0], "9": 3})"), "expected [layer, head], found 3", read);
  refused(file(R"({"5": [1, 1], "9": [0, 1]})"), "no head for cluster '2'", read);
  refused(file(R"({"5": [1, 1], "2": [0, 0], "9": [0, 1], "7": [0, 2]})"), "names '7'", read);
  refused(file("[[0, 1]]"), "best_pivots: expected", read);
}

}  // namespace
}  // namespace prefill
