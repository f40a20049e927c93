// Prompt templates of the twelve tasks: our own wording in the official order of parts, or templates that
// scripts/import_infinitebench.py read out of the user's checkout of the official repository.
#pragma once
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace prefill::infinitebench {

/// Own templates by task, in the syntax of Python's str.format: {slot}, {{ and }}.
const std::map<std::string, std::string>& own_templates();
/// The templates of a file written by scripts/import_infinitebench.py. Throws InputError when it is no such
/// file.
std::map<std::string, std::string> read_templates(const std::string& path);

/// Fills the slots; what is put in is not looked at again. `value_of` gives what belongs into a slot, or
/// throws. Throws InputError for a stray brace, naming `what`.
std::string fill(const std::string& text, const std::function<std::string(const std::string& slot)>& value_of,
                 const std::string& what);

/// The prompt of one row (specification 1.2): picks the function call of code_run and the number of math_find
/// out of `input`, spreads the options. `place` ("file:line") starts the message of the InputError for a row
/// that lacks what its task needs.
std::string make_prompt(const std::string& task, const nlohmann::json& row, const std::string& text,
                        const std::string& place);

/// The label that predictions are scored against (specification 1.1): for code_debug and longbook_choice_eng
/// [text, letter], else `answer` as it stands. Throws InputError when the official code would raise.
nlohmann::json label_of(const std::string& task, const nlohmann::json& row, const std::string& place);

}  // namespace prefill::infinitebench
