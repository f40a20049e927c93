// The method that docs/adding-a-method.md shows is this folder's window_topk.cpp: built, registered by being
// there, right.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/base/text.h"
#include "core/engine.h"

namespace prefill {
namespace {

const std::string kSource = PREFILL_SOURCE_DIR;

TEST(Example, TheDocumentShowsExactlyThisFile) {
  const std::string page = read_file(kSource + "/docs/adding-a-method.md"),
                    code = read_file(kSource + "/tests/example/window_topk.cpp");
  EXPECT_NE(page.find("```cpp\n" + code + "```"), std::string::npos)
      << "docs/adding-a-method.md and tests/example/window_topk.cpp differ";
}

TEST(Example, OneFileIsOneMethod) {
  ASSERT_NE(methods().find("window_topk"), nullptr);
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kSource + "/methods")) {
    if (entry.path().extension() != ".cpp") continue;
    ++files;
    size_t registered = 0;
    for (const auto& [name, m] : methods().all())
      registered += m.file.ends_with("methods/" + entry.path().filename().string());
    EXPECT_GE(registered, 1u) << entry.path() << " registers no method";
  }
  for (const auto& [name, m] : methods().all()) {
    if (name == "window_topk") continue;
    EXPECT_TRUE(
        std::filesystem::exists(kSource + "/methods/" + std::filesystem::path(m.file).filename().string()))
        << name;
  }
  EXPECT_GT(files, 0u);
}

TEST(Example, WholeWindowIsDenseAttention) {
  const auto backend = backends().at("cpu-ref").make();
  const at::Tensor q = at::randn({4, 333, 64}), k = at::randn({2, 333, 64}), v = at::randn({2, 333, 64});
  auto run = [&](const std::string& name, const nlohmann::json& params) {
    const auto method = make_method(name, params, MethodEnv{ModelShape{"example", 1, 4, 2, 64}});
    const auto clock = make_cpu_clock();
    AttentionEngine engine(*method, *backend, *clock, 333);
    engine.check_plans = true;
    const at::Tensor out = engine.prefill(0, Qkv{q, k, v, 0.125});
    return std::pair{out, engine.mean_density()};
  };
  const auto [dense, one] = run("dense", nlohmann::json::object());
  const auto [full, all] = run("window_topk", {{"local_tiles", 100}});
  const auto [sparse, part] = run("window_topk", {{"local_tiles", 1}, {"top_tiles", 1}});
  EXPECT_DOUBLE_EQ(all, 1);
  EXPECT_LT(part, 0.7);
  EXPECT_TRUE(at::allclose(dense, full, 1e-4, 1e-5));
  EXPECT_FALSE(at::allclose(dense, sparse, 1e-4, 1e-5));
}

}  // namespace
}  // namespace prefill
