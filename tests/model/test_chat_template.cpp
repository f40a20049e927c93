#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/model/chat_template.h"
#include "tests/model/helpers.h"

namespace prefill {
namespace {

std::string chat_folder(const std::string& name) {
  return std::string(PREFILL_SOURCE_DIR) + "/tests/model/chat/" + name;
}

/// Expected texts are transformers' own rendering (scripts/fixtures/make_chat_templates.py).
TEST(ChatTemplate, RendersAsTransformersDoes) {
  for (const char* name : {"smollm2", "qwen25", "qwen3", "llama3", "llama31", "llama2"}) {
    std::ifstream in(chat_folder(name) + "/expected.json");
    const auto cases = nlohmann::json::parse(in);
    ASSERT_GE(cases.size(), 3u);
    for (const auto& c : cases)
      EXPECT_EQ(apply_chat_template(chat_folder(name), c["system"], c["user"]),
                c["expected"].get<std::string>())
          << name;
  }
}

TEST(ChatTemplate, SaysWhenThereIsNone) {
  const TempFolder dir;
  EXPECT_NE(input_error([&] { apply_chat_template(dir.path(), "", "hi"); }).find("no chat template"),
            std::string::npos);
  write_text(dir / "tokenizer_config.json", "{\"bos_token\": ");
  EXPECT_NE(input_error([&] { apply_chat_template(dir.path(), "", "hi"); }).find("not valid JSON"),
            std::string::npos);
}

TEST(ChatTemplate, RefusesUnknownFormatsByName) {
  const TempFolder dir;
  write_text(dir / "chat_template.jinja", "{% for m in messages %}<turn>{{ m.content }}{% endfor %}");
  try {
    apply_chat_template(dir.path(), "", "hi");
    FAIL() << "an unknown format was rendered";
  } catch (const Unsupported& e) {
    const std::string message = e.what();
    EXPECT_NE(message.find("chat_template.jinja"), std::string::npos);
    EXPECT_NE(message.find("ChatML"), std::string::npos);
  }
}

}  // namespace
}  // namespace prefill
