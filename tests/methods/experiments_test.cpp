// The experiments that ship with the project: every file reads without a complaint in both forms, and every
// method in them accepts its artefacts for the model that they were calibrated on.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/backend.h"
#include "core/run/experiment.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> experiments(const std::string& prefix) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(PREFILL_SOURCE_DIR "/experiments"))
    if (entry.path().extension() == ".yaml" && entry.path().filename().string().starts_with(prefix))
      out.push_back(entry.path());
  return out;
}

std::string complaints(const Diagnostics& bad) {
  std::string all;
  for (const Diagnostic& d : bad) all += d.print() + "\n";
  return all;
}

TEST(ShippedExperiments, ReadWithoutAComplaint) {
  const auto files = experiments("");
  EXPECT_GE(files.size(), 15u);
  const MethodEnv env{ModelShape{"smollm2-135m-instruct-128k", 30, 9, 3, 64, 8e6}};
  for (const fs::path& file : files) {
    Diagnostics bad;
    const Experiment e = read_experiment(file.string(), bad);
    if (!backends().find("cuda"))  // a build without CUDA says so, and has nothing else to say
      std::erase_if(bad,
                    [](const Diagnostic& d) { return d.print().ends_with("build with the cuda preset"); });
    EXPECT_TRUE(bad.empty()) << complaints(bad);
    EXPECT_EQ(e.name, file.stem().string()) << "results should be found under the file's name";
    EXPECT_TRUE(e.pruned.empty()) << file << ": " << e.pruned.front().label << ": "
                                  << e.pruned.front().reason;
    if (e.model != env.model.id) continue;
    for (const MethodPoint& p : e.points)
      EXPECT_NO_THROW(p.method->make(p.params, env)) << file << ": " << p.label;
  }
}

TEST(ShippedExperiments, AblationsHaveAQuickForm) {
  const auto files = experiments("ablate-");
  EXPECT_GE(files.size(), 13u);
  for (const fs::path& file : files) {
    Diagnostics bad;
    const Experiment e = read_experiment(file.string(), bad, /*quick=*/true);
    EXPECT_TRUE(bad.empty()) << complaints(bad);
    for (const WorkloadSpec& w : e.workloads) EXPECT_LE(w.tokens * w.count, 4096) << file;
    EXPECT_GE(e.points.size(), 6u) << file << ": dense, and a base with a few ablations";
  }
}

}  // namespace
}  // namespace prefill
