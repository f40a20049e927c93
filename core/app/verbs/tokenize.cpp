// `tokenize` and `detokenize`: text to ids and back, exactly as the reference tokenizer of the model does it.
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/app/tokenizer_folder.h"
#include "core/app/verb.h"
#include "core/text/tokenizer.h"

namespace prefill {
namespace {

std::function<int()> setup_tokenize(CLI::App& app) {
  struct Options {
    std::string model, file, text;
    bool json = false, no_special = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("--model", options->model,
                 "Hugging Face folder with tokenizer.json or tokenizer.model, or the name of a fetched model")
      ->required()
      ->type_name("DIR");
  auto* file = app.add_option("--file", options->file, "text file, taken byte for byte")->type_name("FILE");
  auto* text = app.add_option("TEXT", options->text, "the text itself");
  text->excludes(file);
  app.add_flag("--json", options->json, "print {\"ids\": [...]}");
  app.add_flag("--no-special", options->no_special, "no BOS / EOS that the model's tokenizer would add");
  return [=] {
    if (file->empty() && text->empty()) throw InputError("tokenize: should have --file FILE or a TEXT");
    const std::string input = file->empty() ? options->text : read_file(options->file);
    const auto tokenizer = load_tokenizer(tokenizer_folder(options->model));
    std::vector<int32_t> ids;
    try {
      ids = tokenizer->encode(input, !options->no_special);
    } catch (const InputError& e) {
      throw InputError(str(file->empty() ? "TEXT" : options->file, ": ", e.what()));
    }
    if (options->json) {
      std::cout << nlohmann::json{{"ids", ids}} << "\n";
    } else {
      for (size_t i = 0; i < ids.size(); ++i) std::cout << (i ? " " : "") << ids[i];
      std::cout << "\n";
    }
    return int(exit_ok);
  };
}

// A JSON list of ids, or {"ids": [...]} as `tokenize --json` prints it.
std::vector<int32_t> read_ids(const std::string& path) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& e) {
    throw InputError(str(path, ": not valid JSON: ", e.what()));
  }
  if (json.is_object()) {
    if (!json.contains("ids"))
      throw InputError(str(path, ": should be a list of ids or an object with 'ids'"));
    json = json["ids"];
  }
  if (!json.is_array()) throw InputError(str(path, ": should be a list of ids or an object with 'ids'"));
  std::vector<int32_t> ids;
  for (size_t i = 0; i < json.size(); ++i) {
    if (!json[i].is_number_integer() || json[i] < 0 || json[i] > INT32_MAX)
      throw InputError(
          str(path, ": id ", i, " should be an integer from 0 to ", INT32_MAX, ", is ", json[i].dump()));
    ids.push_back(json[i].get<int32_t>());
  }
  return ids;
}

std::function<int()> setup_detokenize(CLI::App& app) {
  struct Options {
    std::string model, file;
    std::vector<int32_t> ids;
    bool keep_special = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("--model", options->model,
                 "Hugging Face folder with tokenizer.json or tokenizer.model, or the name of a fetched model")
      ->required()
      ->type_name("DIR");
  auto* file = app.add_option("--ids", options->file, "JSON file: a list of ids, or {\"ids\": [...]}")
                   ->type_name("FILE");
  auto* ids = app.add_option("IDS", options->ids, "the ids themselves");
  ids->excludes(file);
  app.add_flag("--keep-special", options->keep_special, "print special tokens (BOS, EOS, ...) too");
  return [=] {
    if (file->empty() && ids->empty()) throw InputError("detokenize: should have --ids FILE or IDS");
    const std::vector<int32_t> list = file->empty() ? options->ids : read_ids(options->file);
    const auto tokenizer = load_tokenizer(tokenizer_folder(options->model));
    for (int32_t id : list)
      if (id < 0 || id >= tokenizer->vocab_size())
        throw InputError(str("id ", id, " is not in the vocabulary of ", options->model, " (0 to ",
                             tokenizer->vocab_size() - 1, ")"));
    std::cout << tokenizer->decode(list, !options->keep_special);  // no newline: the text as it is
    return int(exit_ok);
  };
}

const RegisterVerb tokenize{{"tokenize", "Token ids of a text, as the model's reference tokenizer gives them",
                             __FILE__, 60, setup_tokenize}};
const RegisterVerb detokenize{{"detokenize", "Text of token ids", __FILE__, 61, setup_detokenize}};

}  // namespace
}  // namespace prefill
