// Fixed-width text for terminals.
#pragma once
#include <string>
#include <vector>

namespace prefill {

/// Columns the text takes on a terminal (every code point counts as one).
int text_columns(const std::string& text);
/// The text with its middle left out when it is too long: beginnings and ends tell settings apart.
std::string cut_to(const std::string& text, int width);
/// Wraps at blanks and ends with a newline; lines after the first are indented.
std::string wrap(const std::string& text, int width, int indent);

/// A table whose one column of width 0 takes the room that its longest cell needs and the line has left.
class TextTable {
 public:
  struct Column {
    std::string head;
    int width = 0;
    bool right = false;
  };
  TextTable(std::vector<Column> layout, int line_width)
      : layout_(std::move(layout)), line_width_(line_width) {}
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string text() const;

 private:
  std::vector<Column> layout_;
  int line_width_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace prefill
