// One line of CSV.
#pragma once
#include <string>
#include <vector>

namespace prefill {

/// RFC 4180, ended by a line feed: cells with a comma, quote or line end are quoted.
inline std::string csv_row(const std::vector<std::string>& cells) {
  std::string out;
  for (size_t i = 0; i < cells.size(); ++i) {
    const std::string& text = cells[i];
    if (i > 0) out += ',';
    if (text.find_first_of(",\"\n\r") == std::string::npos) {
      out += text;
      continue;
    }
    out += '"';
    for (char c : text) out.append(c == '"' ? 2 : 1, c);
    out += '"';
  }
  return out + "\n";
}

}  // namespace prefill
