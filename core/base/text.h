// Small text helpers without a better home.
#pragma once
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace prefill {

/// Concatenates anything that prints: str("n = ", 3).
template <class... T>
std::string str(const T&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Levenshtein distance, for suggestions.
int edit_distance(std::string_view a, std::string_view b);

/// "; did you mean 'x'?" for the nearest of `known`, or "" when nothing is near enough to be a typo.
std::string did_you_mean(std::string_view given, const std::vector<std::string>& known);

/// The shortest decimal text that reads back as the same double; never "nan" or "inf" (throws InputError).
std::string number_text(double value);

/// Whole file as bytes; throws InputError naming the file when it can not be read.
std::string read_file(const std::string& path);

/// Writes beside the target, flushes to disk and renames: readers see the old file or the new, never half.
void write_file_atomically(const std::string& path, std::string_view bytes);

}  // namespace prefill
