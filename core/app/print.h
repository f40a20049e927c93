// Terminal output shared by the verbs.
#pragma once
#include <string>
#include <vector>

namespace prefill {

/// Wraps text at `width` columns; lines after the first are indented by `indent` spaces.
std::string wrap(const std::string& text, size_t indent, size_t width = 100);

/// Columns padded to their widest cell, two spaces between; the last column is wrapped.
std::string table(const std::vector<std::vector<std::string>>& rows, size_t width = 110);

}  // namespace prefill
