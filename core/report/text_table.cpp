#include "core/report/text_table.h"

#include <algorithm>

namespace prefill {
namespace {

bool starts_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

std::string pad(const std::string& text, int width, bool right) {
  const std::string blanks(static_cast<size_t>(std::max(0, width - text_columns(text))), ' ');
  return right ? blanks + text : text + blanks;
}

}  // namespace

int text_columns(const std::string& text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), starts_character));
}

std::string cut_to(const std::string& text, int width) {
  const int length = text_columns(text);
  if (length <= width) return text;
  const int head = (width - 1) / 2, tail = width - 1 - head;
  std::string out;
  int at = -1;
  for (char c : text) {
    at += starts_character(c);
    if (at == head && starts_character(c)) out += "…";
    if (at < head || at >= length - tail) out += c;
  }
  return out;
}

std::string wrap(const std::string& text, int width, int indent) {
  std::string out, line;
  const size_t first_word = std::min(text.find_first_not_of(' '), text.size());
  line.assign(first_word, ' ');
  bool fresh = true;  // no word on this line yet
  for (size_t at = first_word; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!fresh && text_columns(line) + 1 + text_columns(word) > width) {
      out += line + "\n";
      line.assign(static_cast<size_t>(indent), ' ');
      fresh = true;
    }
    if (!fresh) line += ' ';
    line += word;
    fresh = false;
    at = end + 1;
  }
  return out + line + "\n";
}

std::string TextTable::text() const {
  std::vector<int> widths;
  int fixed = 2 * static_cast<int>(layout_.size() - 1);
  for (const Column& c : layout_) fixed += c.width;
  for (size_t i = 0; i < layout_.size(); ++i) {
    int width = layout_[i].width;
    if (width == 0) {
      width = text_columns(layout_[i].head);
      for (const auto& row : rows_) width = std::max(width, text_columns(row[i]));
      width = std::max(12, std::min(width, line_width_ - fixed));
    }
    widths.push_back(width);
  }
  auto line = [&](auto cell) {
    std::string out;
    for (size_t i = 0; i < layout_.size(); ++i) {
      if (i > 0) out += "  ";
      out += pad(cut_to(cell(i), widths[i]), widths[i], layout_[i].right);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out + "\n";
  };
  std::string out = line([&](size_t i) { return layout_[i].head; });
  for (const auto& row : rows_) out += line([&](size_t i) { return row[i]; });
  return out;
}

}  // namespace prefill
