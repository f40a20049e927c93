#include "tasks/generated/haystack.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/prose.h"

namespace prefill {

const char* const noise_line =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

std::vector<std::string> split_sentences(const std::string& text) {
  std::string flat;
  for (char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!space)
      flat += c;
    else if (!flat.empty() && flat.back() != ' ')
      flat += ' ';
  }
  std::vector<std::string> out;
  size_t from = 0;
  for (size_t i = 0; i < flat.size(); ++i) {
    if (flat[i] != '.' && flat[i] != '!' && flat[i] != '?') continue;
    size_t end = i + 1;
    while (end < flat.size() && (flat[end] == '"' || flat[end] == '\'' || flat[end] == ')')) ++end;
    if (end < flat.size() && flat[end] != ' ') continue;
    const char next = end + 1 < flat.size() ? flat[end + 1] : 'A';
    if (!((next >= 'A' && next <= 'Z') || (next >= '0' && next <= '9') || next == '"' || next == '(' ||
          next < 0))
      continue;
    out.push_back(flat.substr(from, end - from));
    from = end + 1;
    i = end;
  }
  if (from < flat.size()) {
    std::string rest = flat.substr(from);
    while (!rest.empty() && rest.back() == ' ') rest.pop_back();
    if (!rest.empty()) out.push_back(rest);
  }
  return out;
}

Haystack::Haystack(const std::string& kind, const Path& file) : kind_(kind) {
  if (kind == "noise") {
    sentences_ = std::make_shared<std::vector<std::string>>(1, noise_line);
    return;
  }
  Prose prose = read_prose(file, "haystack_file");
  auto sentences = split_sentences(prose.text);
  if (sentences.size() < 2)
    throw InputError(
        str(prose.provenance["file"].get<std::string>(), ": a haystack needs at least two sentences"));
  provenance_ = std::move(prose.provenance);
  sentences_ = std::make_shared<std::vector<std::string>>(std::move(sentences));
}

std::string Haystack::text(int64_t units, std::vector<std::pair<double, std::string>> needles, uint64_t start,
                           const std::string& separator) const {
  std::stable_sort(needles.begin(), needles.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string out;
  auto add = [&](const std::string& piece) {
    if (!out.empty()) out += separator;
    out += piece;
  };
  size_t next = 0;
  for (int64_t u = 0; u <= units; ++u) {
    for (; next < needles.size() && int64_t(needles[next].first * double(units)) <= u; ++next)
      add(needles[next].second);
    if (u < units) add((*sentences_)[(start + uint64_t(u)) % sentences_->size()]);
  }
  return out;
}

}  // namespace prefill
