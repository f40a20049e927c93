#include "tasks/infinitebench/templates.h"

#include <algorithm>
#include <regex>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/scoring/unicode.h"

namespace prefill::infinitebench {
namespace {

std::string text_field(const nlohmann::json& row, const char* key, const std::string& place) {
  const auto it = row.find(key);
  if (it == row.end() || !it->is_string())
    throw InputError(str(place, ": the row needs a string '", key, "'"));
  return it->get<std::string>();
}

// "The second largest number of the list is: " -> "the second largest number". Greedy, within one line.
std::string wanted_number(const std::string& input, const std::string& place) {
  const size_t from = input.find("The ");
  if (from != std::string::npos) {
    const std::string line = input.substr(from, input.find('\n', from) - from);
    const size_t of = line.rfind(" of");
    if (of != std::string::npos && of > 4)
      return scoring::encode_utf8(scoring::lower(scoring::decode_utf8(line.substr(0, of))));
  }
  throw InputError(str(place, ": 'input' of math_find must say \"The ... of\""));
}

}  // namespace

const std::map<std::string, std::string>& own_templates() {
  static const std::string find_it =
      "There is important information hidden inside a lot of irrelevant text. Find it and memorize it. You "
      "will be asked about it.\n\n"
      "{context}\n\n{input}\n\n";
  static const std::string options = "A. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}\n\n";
  static const std::map<std::string, std::string> all{
      {"passkey", find_it + "The pass key is"},
      {"number_string", find_it + "The sequence of digits is"},
      {"kv_retrieval",
       "Extract the value corresponding to the key that is named after the following JSON "
       "object.\n\n{context}\n\n{input}"},
      {"longbook_sum_eng", "Write a summary of the following book.\n\n{context}\n\nSummary:"},
      {"longbook_choice_eng",
       "Read the book, then choose the right answer to the question about it.\n\n{context}\n\nQuestion: "
       "{question}\n" +
           options + "The letter of the right answer is"},
      {"longbook_qa_eng",
       "Read the book, then answer the question in as few words as you can.\n\n{context}\n\nQuestion: "
       "{question}\nAnswer:"},
      {"longbook_qa_chn",
       "\u8bf7\u9605\u8bfb\u4e0b\u9762\u7684\u4e66\uff0c\u7136\u540e\u7b80\u77ed\u5730\u56de\u7b54\u95ee"
       "\u9898\u3002\n\n{context}\n\n"
       "\u95ee\u9898\uff1a{question}\n\u7b54\u6848\uff1a"},
      {"longdialogue_qa_eng",
       "In the following script one mention of a character's name was replaced by \"$$MASK$$\". Work out "
       "whose name it was.\n\n"
       "{context}\n\nThe name that belongs in place of $$MASK$$ is"},
      {"math_find", "{prefix}\n\n{context}\n\n{input}"},
      // The examples list the first operand first, as the official ones do; the labels of the data set do
      // not.
      {"math_calc",
       "Give the intermediate values of an expression.\n\nExpression: 2 + 5 + 1\nValues: [2, 7, 8]\n\n"
       "Expression: 9 - 4 + 3 - 6\nValues: [9, 5, 8, 2]\n\nExpression: {context}\nValues:"},
      {"code_run",
       "The Python code below defines a function called {func}.\n\n{context}\n\n"
       "Compute the exact value of {func_call}. The value of {func_call} is"},
      {"code_debug",
       "One function or method in the following Python code has an error, put in on purpose, that makes it "
       "crash.\n\n"
       "{context}\n\nOptions:\n" +
           options + "The correct option is:"},
  };
  return all;
}

std::map<std::string, std::string> read_templates(const std::string& path) {
  std::map<std::string, std::string> out;
  try {
    const auto file = nlohmann::json::parse(read_file(path));
    for (const auto& [task, text] : file.at("templates").items()) out[task] = text.get<std::string>();
  } catch (const nlohmann::json::exception&) {
    throw InputError(str(path,
                         ": not a file of templates; scripts/import_infinitebench.py writes one, "
                         "{\"templates\": {task: text}}"));
  }
  return out;
}

std::string fill(const std::string& text, const std::function<std::string(const std::string& slot)>& value_of,
                 const std::string& what) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      out += c;
    } else if (i + 1 < text.size() && text[i + 1] == c) {
      out += c;
      ++i;
    } else {
      const size_t end = c == '{' ? text.find('}', i) : std::string::npos;
      if (end == std::string::npos) throw InputError(str(what, ": a stray '", c, "' at byte ", i));
      out += value_of(text.substr(i + 1, end - i - 1));
      i = end;
    }
  }
  return out;
}

std::string make_prompt(const std::string& task, const nlohmann::json& row, const std::string& text,
                        const std::string& place) {
  const bool retrieval = task == "passkey" || task == "number_string" || task == "kv_retrieval";
  std::map<std::string, std::string> slots;
  // Old files of the retrieval tasks call the context "content".
  const bool legacy = retrieval && row.contains("content");
  slots["context"] = text_field(row, legacy ? "content" : "context", place);
  if (task == "code_debug" || task == "longbook_choice_eng") {
    const auto options = row.find("options");
    if (options == row.end() || !options->is_array() || options->size() < 4)
      throw InputError(str(place, ": the row needs four 'options'"));
    for (size_t i = 0; i < 4; ++i) {
      if (!(*options)[i].is_string()) throw InputError(str(place, ": 'options' must be strings"));
      slots[str("OPTION_", char('A' + i))] = (*options)[i];
    }
  }
  if (task == "code_run") {
    static const std::regex form(R"(func_[0-9]+\(-?[0-9]+\))");
    const std::string input = text_field(row, "input", place);
    std::smatch call;
    if (!std::regex_search(input, call, form))
      throw InputError(str(place, ": 'input' of code_run must name a call such as func_12(-3)"));
    slots["func_call"] = call[0];
    slots["func"] = slots["func_call"].substr(0, slots["func_call"].find('('));
  }
  if (task == "math_find")
    slots["prefix"] =
        "What is " + wanted_number(text_field(row, "input", place), place) + " in the following list?";
  const std::string what = str(place, ": template of ", task);
  auto value_of = [&](const std::string& slot) {
    if (slot == "input" || slot == "question") return text_field(row, "input", place);
    const auto it = slots.find(slot);
    if (it == slots.end()) throw InputError(str(what, ": nothing to put into the slot {", slot, "}"));
    return it->second;
  };
  return fill(text, value_of, what);
}

nlohmann::json label_of(const std::string& task, const nlohmann::json& row, const std::string& place) {
  const auto it = row.find("answer");
  if (it == row.end()) throw InputError(str(place, ": the row has no 'answer'"));
  const nlohmann::json& answer = *it;
  if (task != "code_debug" && task != "longbook_choice_eng") return answer;
  if (answer.is_array() && answer.size() == 2 && answer[1].is_string()) {
    const std::string letter = answer[1];
    if (letter.size() == 1 && letter[0] >= 'A' && letter[0] <= 'D') return answer;
  }
  const nlohmann::json& text = answer.is_array() && answer.size() == 1 ? answer[0] : answer;
  if (!text.is_string())
    throw InputError(str(place, ": 'answer' must be a string, a list of one, or [text, letter]"));
  const auto options = row.find("options");
  if (options != row.end() && options->is_array())
    for (size_t i = 0; i < std::min<size_t>(4, options->size()); ++i)
      if ((*options)[i] == text) return nlohmann::json::array({text, std::string(1, char('A' + i))});
  throw InputError(str(place, ": 'answer' is not among the 'options'"));
}

}  // namespace prefill::infinitebench
