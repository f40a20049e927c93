// A cache folder of the test's own, so that nothing depends on what this machine has fetched.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace prefill {

/// $PREFILLBENCH_HOME is an empty folder while this lives.
class CacheFolder {
 public:
  CacheFolder() {
    if (const char* old = std::getenv("PREFILLBENCH_HOME")) before_ = old;
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("cache_") + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    setenv("PREFILLBENCH_HOME", folder_.c_str(), 1);
  }
  ~CacheFolder() {
    std::filesystem::remove_all(folder_);
    before_.empty() ? unsetenv("PREFILLBENCH_HOME") : setenv("PREFILLBENCH_HOME", before_.c_str(), 1);
  }
  CacheFolder(const CacheFolder&) = delete;
  void write_prose(const std::string& text) const {
    std::filesystem::create_directories(folder_ / "prose");
    std::ofstream(folder_ / "prose/austen.txt", std::ios::binary) << text;
  }

 private:
  std::filesystem::path folder_;
  std::string before_;
};

}  // namespace prefill
