// Chat templates of the model families at hand, recognised by their format.
#pragma once
#include <string>

namespace prefill {

/// One user message (and a system message, "" for the template's own default) with the generation prompt, as
/// transformers' apply_chat_template prints it for the folder's template. Throws InputError for a folder
/// without a template, Unsupported for one of an unknown format (it says which are known).
std::string apply_chat_template(const std::string& folder, const std::string& system,
                                const std::string& user);

}  // namespace prefill
