// Text that nothing is asked about: repeated noise, or prose.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/config/fields.h"

namespace prefill {

/// The noise line of the pass-key tests (Mohtashami and Jaggi 2023; InfiniteBench's construction script):
/// five sentences, no separator at the end.
extern const char* const noise_line;

class Haystack {
 public:
  /// kind: "noise" or "prose". Prose is a UTF-8 text file, by default that of scripts/fetch_prose.py; it is
  /// split into sentences, white space collapsed. Throws what read_prose throws, and InputError when the file
  /// has no sentences.
  Haystack(const std::string& kind, const Path& file);
  /// `units` sentences (or noise lines) with `needles` put in: each before unit floor(depth * units). Pieces
  /// are joined by `separator`. Prose starts at sentence `start` (modulo its length) and wraps around.
  std::string text(int64_t units, std::vector<std::pair<double, std::string>> needles, uint64_t start = 0,
                   const std::string& separator = " ") const;
  const std::string& kind() const { return kind_; }
  /// Of prose: file and SHA-256; null for noise.
  const nlohmann::json& provenance() const { return provenance_; }

 private:
  std::string kind_;
  nlohmann::json provenance_;
  std::shared_ptr<const std::vector<std::string>> sentences_;
};

/// The sentences of a text: white space collapsed, cut after . ! ? (and closing quotes) before a space and a
/// capital letter, a quote or a digit.
std::vector<std::string> split_sentences(const std::string& text);

}  // namespace prefill
