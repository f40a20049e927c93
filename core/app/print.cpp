#include "core/app/print.h"

#include <algorithm>
#include <sstream>

namespace prefill {

std::string wrap(const std::string& text, size_t indent, size_t width) {
  std::istringstream words(text);
  std::string out, line, word;
  const std::string pad(indent, ' ');
  const size_t room = width > indent + 20 ? width - indent : 20;
  while (words >> word) {
    if (!line.empty() && line.size() + 1 + word.size() > room) {
      out += (out.empty() ? "" : "\n" + pad) + line;
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return out + (out.empty() ? "" : "\n" + pad) + line;
}

std::string table(const std::vector<std::vector<std::string>>& rows, size_t width) {
  std::vector<size_t> widths;
  for (const auto& row : rows)
    for (size_t c = 0; c + 1 < row.size(); ++c) {
      if (widths.size() <= c) widths.push_back(0);
      widths[c] = std::max(widths[c], row[c].size());
    }
  std::string out;
  for (const auto& row : rows) {
    size_t at = 0;
    for (size_t c = 0; c < row.size(); ++c) {
      if (c + 1 == row.size()) {
        out += wrap(row[c], at, width);
      } else {
        out += row[c] + std::string(widths[c] + 2 - row[c].size(), ' ');
        at += widths[c] + 2;
      }
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    out += "\n";
  }
  return out;
}

}  // namespace prefill
