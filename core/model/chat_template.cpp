// A chat template is a Jinja program; the ones of these families boil down to three layouts that differ in a
// few literals. The layout is told by the template's own markers and the literals are read out of it.
#include "core/model/chat_template.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Template {
  std::string file, text, bos;
};

json read_tokenizer_config(const std::string& path) {
  if (!fs::exists(path)) return json::object();
  try {
    json value = json::parse(read_file(path));
    if (value.is_object()) return value;
  } catch (const json::exception& e) {
    throw InputError(str(path, ": not valid JSON: ", e.what()));
  }
  throw InputError(str(path, ": not a JSON object"));
}

/// A token is given as a string or as an object with `content`.
std::string token_text(const json& config, const char* key) {
  if (!config.contains(key)) return "";
  const json& v = config[key];
  if (v.is_string()) return v.get<std::string>();
  return v.is_object() && v.contains("content") && v["content"].is_string() ? v["content"].get<std::string>()
                                                                            : "";
}

Template read_template(const std::string& folder) {
  const std::string config_file = folder + "/tokenizer_config.json",
                    own_file = folder + "/chat_template.jinja";
  const json config = read_tokenizer_config(config_file);
  Template t{own_file, "", token_text(config, "bos_token")};
  if (fs::exists(own_file)) {
    t.text = read_file(own_file);
    return t;
  }
  t.file = config_file;
  if (config.contains("chat_template")) {
    const json& v = config["chat_template"];
    if (v.is_string()) t.text = v.get<std::string>();
    if (v.is_array())  // several named ones: transformers takes "default"
      for (const auto& entry : v)
        if (entry.is_object() && entry.value("name", "") == "default") t.text = entry.value("template", "");
  }
  if (t.text.empty())
    throw InputError(
        str(folder,
            ": no chat template (neither chat_template.jinja nor 'chat_template' in tokenizer_config.json)"));
  return t;
}

bool has(const Template& t, std::string_view what) { return t.text.find(what) != std::string::npos; }

/// Jinja's `trim`.
std::string trim(const std::string& s) {
  const char* space = " \t\n\r\f\v";
  const auto first = s.find_first_not_of(space);
  return first == std::string::npos ? "" : s.substr(first, s.find_last_not_of(space) - first + 1);
}

/// Text of the literal that follows `before` up to `after`, with Jinja's \n escapes undone; "" when there is
/// none, or when the literal ends before `after` comes (then the text is not a constant).
std::string literal(const Template& t, const std::string& before, const std::string& after) {
  for (size_t at = t.text.find(before); at != std::string::npos; at = t.text.find(before, at + 1)) {
    const size_t from = at + before.size(), to = t.text.find(after, from),
                 quote = t.text.find_first_of("'\"{", from);
    if (to == std::string::npos || to == from || (quote != std::string::npos && quote < to)) continue;
    std::string out = t.text.substr(from, to - from);
    for (size_t i = 0; (i = out.find("\\n", i)) != std::string::npos; ++i) out.replace(i, 2, "\n");
    return out;
  }
  return "";
}

/// SmolLM2, Qwen2, Qwen2.5, Qwen3: <|im_start|>role, newline, content, <|im_end|>, newline.
std::string chatml(const Template& t, const std::string& system, const std::string& user) {
  std::string preset = system;
  for (const char* newline : {"\n", "\\n"})  // the template's file may hold the escape or the character
    if (preset.empty()) preset = literal(t, str("<|im_start|>system", newline), "<|im_end|>");
  std::string out;
  if (!preset.empty()) out += "<|im_start|>system\n" + preset + "<|im_end|>\n";
  return out + "<|im_start|>user\n" + user + "<|im_end|>\n<|im_start|>assistant\n";
}

/// Llama 3: header lines, contents trimmed. From 3.1 on there always is a system message, which starts with
/// dates. 3.2 asks for today's date where it can; here it is the template's own fallback, or equal runs would
/// differ.
std::string llama3(const Template& t, const std::string& system, const std::string& user) {
  const auto message = [](const std::string& role, const std::string& text) {
    return "<|start_header_id|>" + role + "<|end_header_id|>\n\n" + text + "<|eot_id|>";
  };
  std::string out = t.bos;
  std::string cutoff = literal(t, "Cutting Knowledge Date: ", "\\n");
  if (cutoff.empty()) cutoff = literal(t, "Cutting Knowledge Date: ", "\n");
  if (!cutoff.empty()) {
    std::string today = literal(t, "date_string = \"", "\"");
    if (today.empty()) today = literal(t, "date_string = '", "'");
    if (today.empty()) today = "26 Jul 2024";
    out += message("system",
                   "Cutting Knowledge Date: " + cutoff + "\nToday Date: " + today + "\n\n" + trim(system));
  } else if (!system.empty()) {
    out += message("system", trim(system));
  }
  return out + message("user", trim(user)) + "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

/// Llama 2: [INST] with the system message inside the first user message.
std::string llama2(const Template& t, const std::string& system, const std::string& user) {
  const std::string head = system.empty() ? "" : "<<SYS>>\n" + system + "\n<</SYS>>\n\n";
  return t.bos + "[INST] " + trim(head + user) + " [/INST]";
}

}  // namespace

std::string apply_chat_template(const std::string& folder, const std::string& system,
                                const std::string& user) {
  const Template t = read_template(folder);
  if (has(t, "<|start_header_id|>") && has(t, "<|eot_id|>")) return llama3(t, system, user);
  if (has(t, "<|im_start|>") && has(t, "<|im_end|>")) return chatml(t, system, user);
  if (has(t, "<<SYS>>") && has(t, "[INST]")) return llama2(t, system, user);
  throw Unsupported(
      str(t.file,
          ": chat template of an unknown format; known are ChatML (<|im_start|>), Llama 3 "
          "(<|start_header_id|>) and Llama 2 (<<SYS>>). Prompts without a template work with every model"));
}

}  // namespace prefill
