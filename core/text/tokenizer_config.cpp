#include "core/text/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/text.h"
#include "core/text/json_view.h"

namespace prefill {
namespace {

constexpr const char* kNamed[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                  "sep_token", "cls_token", "mask_token"};

constexpr int32_t kLargestId = 1 << 28;

std::shared_ptr<const nlohmann::json> read_if_there(const std::string& path) {
  return std::filesystem::exists(path) ? read_json_file(path) : nullptr;
}

// A special token given as a string or as an object.
AddedToken read_special(const JsonView& json) {
  AddedToken token;
  if (json.is_string()) {
    token.content = json.string();
    token.normalized = false;
  } else {
    token = read_added_token(json);
  }
  token.special = true;
  return token;
}

void read_named(const JsonView& json, TokenizerConfig& config) {
  const auto add = [&](const JsonView& value) {
    AddedToken token = read_special(value);
    const auto same = [&](const AddedToken& t) { return t.content == token.content; };
    if (std::none_of(config.named.begin(), config.named.end(), same))
      config.named.push_back(std::move(token));
  };
  for (const char* name : kNamed)
    if (const JsonView v = json.get(name); v.is_string() || v.is_object()) add(v);
  for (const char* name : {"additional_special_tokens", "extra_special_tokens"})
    if (const JsonView list = json.get(name); list.is_array())
      for (const JsonView& v : list.items()) add(v);
  if (const JsonView v = json.get("bos_token"); v.is_string() || v.is_object())
    config.bos = read_special(v).content;
  if (const JsonView v = json.get("eos_token"); v.is_string() || v.is_object())
    config.eos = read_special(v).content;
}

std::optional<bool> read_flag(const JsonView& json) {
  return json.is_null() ? std::nullopt : std::optional(json.boolean());
}

}  // namespace

AddedToken read_added_token(const JsonView& json) {
  AddedToken token;
  token.content = json.at("content").string();
  token.special = json.get("special").boolean_or(false);
  token.single_word = json.get("single_word").boolean_or(false);
  token.lstrip = json.get("lstrip").boolean_or(false);
  token.rstrip = json.get("rstrip").boolean_or(false);
  token.normalized = json.get("normalized").boolean_or(!token.special);
  return token;
}

TokenizerConfig read_tokenizer_config(const std::string& folder) {
  TokenizerConfig config;
  const std::string path = folder + "/tokenizer_config.json";
  if (const auto document = read_if_there(path)) {
    const JsonView json(*document, path);
    config.add_bos = read_flag(json.get("add_bos_token"));
    config.add_eos = read_flag(json.get("add_eos_token"));
    config.legacy = read_flag(json.get("legacy"));
    read_named(json, config);
    if (const JsonView decoder = json.get("added_tokens_decoder"); !decoder.is_null()) {
      config.has_added_tokens_decoder = true;
      decoder.for_each([&](const std::string& key, const JsonView& value) {
        AddedToken token = read_added_token(value);
        const auto end = key.data() + key.size();
        if (std::from_chars(key.data(), end, token.id).ptr != end || token.id < 0 || token.id > kLargestId)
          value.fail(str("the key should be a token id from 0 to ", kLargestId));
        config.added_by_id.push_back(std::move(token));
      });
    }
  }
  // The older way of writing the same down; not looked at when added_tokens_decoder is there, as in the
  // reference.
  const std::string map_path = folder + "/special_tokens_map.json";
  if (const auto document = config.has_added_tokens_decoder ? nullptr : read_if_there(map_path))
    read_named(JsonView(*document, map_path), config);
  const std::string added_path = folder + "/added_tokens.json";
  if (const auto document = config.has_added_tokens_decoder ? nullptr : read_if_there(added_path)) {
    JsonView(*document, added_path).for_each([&](const std::string& content, const JsonView& id) {
      AddedToken token;
      token.content = content;
      token.id = int32_t(id.integer(0, kLargestId));
      const auto same = [&](const AddedToken& t) { return t.content == content; };
      token.special = std::any_of(config.named.begin(), config.named.end(), same);
      token.normalized = !token.special;
      config.added_by_id.push_back(std::move(token));
    });
  }
  std::stable_sort(config.added_by_id.begin(), config.added_by_id.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return config;
}

}  // namespace prefill
