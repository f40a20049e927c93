// Reading prediction files: label keys, blank and bad lines, line ends, repeated ids, long lines.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "tasks/scoring/predictions.h"

namespace prefill::scoring {
namespace {

class Predictions : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    path_ = testing::TempDir() + "predictions_" + info->name() + ".jsonl";
  }
  void TearDown() override { std::filesystem::remove(path_); }
  FileScore score(const std::string& text, const std::string& profile = "official") {
    std::ofstream(path_, std::ios::binary) << text;
    return score_file(path_, Scorer("passkey", profile));
  }
  std::string path_;
};

const std::string hit = R"({"id": 0, "prediction": "71432", "ground_truth": ["71432"]})";
const std::string miss = R"({"id": 1, "prediction": "no", "ground_truth": ["71432"]})";

TEST_F(Predictions, MeanInFileOrder) {
  const FileScore got =
      score(hit + "\n\n  \t\n" + miss + "\n" + R"({"prediction": "71432", "ground_truth": "71432"})");
  EXPECT_EQ(got.n, 3);
  EXPECT_EQ(got.per_example, (std::vector<double>{1, 0, 1}));
  EXPECT_EQ(got.score, 2.0 / 3);
  EXPECT_TRUE(got.bad.empty());
}

TEST_F(Predictions, FirstRowChoosesTheLabelKey) {
  // "label" is not looked at once the first row has "ground_truth": the third row gets the placeholder
  const FileScore got =
      score(hit + "\n" + miss + "\n" + R"({"prediction": "71432", "label": "71432"})" + "\n");
  EXPECT_EQ(got.per_example, (std::vector<double>{1, 0, 0}));
  EXPECT_TRUE(got.bad.empty());
  EXPECT_EQ(score(R"({"pred": "71432", "label": "71432"})").score, 1);
}

TEST_F(Predictions, BadRowsAreNamedCountedAndSurvived) {
  const FileScore got =
      score("\n" + hit + "\n{\"id\": 2, \"predic\n[1]\n" + R"({"id": 3, "ground_truth": "1"})" + "\n" +
            R"({"id": 4, "prediction": null, "ground_truth": "1"})" + "\n" +
            R"({"id": 5, "prediction": "1", "ground_truth": []})" + "\n\xFF\xFE\n" + hit.substr(0, 7) + "9" +
            hit.substr(8) + "\n");
  EXPECT_EQ(got.n, 8);
  ASSERT_EQ(got.bad.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(got.bad[i].line, int64_t(i) + 3);
  EXPECT_NE(got.bad[2].what.find("prediction"), std::string::npos) << got.bad[2].what;
  EXPECT_NE(got.bad[5].what.find("UTF-8"), std::string::npos) << got.bad[5].what;
  EXPECT_EQ(got.per_example, (std::vector<double>{1, 0, 0, 0, 0, 0, 0, 1}));
  EXPECT_EQ(got.score, 0.25);
}

TEST_F(Predictions, ARowWithoutALabelKeyDoesNotDecideForTheRest) {
  const FileScore got = score(R"({"prediction": "1"})"
                              "\n" +
                              hit);
  EXPECT_EQ(got.bad.size(), 1u);
  EXPECT_EQ(got.score, 0.5);
}

TEST_F(Predictions, LineEndsOfEveryKind) {
  EXPECT_EQ(score(hit + "\r\n" + hit + "\r" + hit + "\n\r\n").n, 3);
  EXPECT_EQ(score(hit + "\r").n, 1);
  // line numbers count "\r\n" once
  const FileScore got = score(hit + "\r\n\r\noops\r\n");
  ASSERT_EQ(got.bad.size(), 1u);
  EXPECT_EQ(got.bad[0].line, 3);
}

TEST_F(Predictions, LinesLongerThanTheBuffer) {
  // escapes, quotes and brackets inside what is skipped; a line end right at a buffer's edge
  std::string context(3'000'000, 'x');
  for (size_t i = 0; i + 10 < context.size(); i += 1000) context.replace(i, 8, "\\\"]},{\\\\");
  const std::string row =
      R"({"context": ")" + context + R"(", "prediction": "71432", "ground_truth": ["71432"]})";
  EXPECT_EQ(score(row + "\n" + hit + "\r\n" + row).score, 1);
  for (size_t pad = (1 << 20) - 3; pad <= (1 << 20) + 3; ++pad)
    EXPECT_EQ(score(hit + std::string(pad - hit.size(), ' ') + "\r\n" + miss + "\r\n").per_example,
              (std::vector<double>{1, 0}));
}

TEST_F(Predictions, RepeatedIdsAreScoredAndRemarked) {
  const FileScore got = score(hit + "\n" + miss + "\n" + hit + "\n");
  EXPECT_EQ(got.n, 3);
  ASSERT_EQ(got.remarks.size(), 1u);
  EXPECT_EQ(got.remarks[0].line, 3);
}

TEST_F(Predictions, NothingToScoreIsBadInput) {
  EXPECT_THROW(score(""), InputError);
  EXPECT_THROW(score("\n \n"), InputError);
  EXPECT_THROW(score_file(path_ + ".absent", Scorer("passkey", "official")), InputError);
}

}  // namespace
}  // namespace prefill::scoring
