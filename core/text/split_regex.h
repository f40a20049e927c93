// Regular expressions of tokenizer.json: written for Oniguruma (Ruby syntax), run by PCRE2 with JIT.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace prefill {

/// The PCRE2 pattern that matches what the Oniguruma pattern matches: classes are spelled out where the
/// engines' Unicode data differ, escapes that mean something else are translated. Throws InputError naming a
/// construct that has no translation (set intersections, POSIX brackets, scripts other than general
/// categories, ...).
std::string translate_oniguruma(std::string_view pattern);

/// Pattern text that matches `literal` and nothing else, in both dialects.
std::string escape_regex(std::string_view literal);

/// What matching needs besides the pattern; one per thread.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(RegexScratch&&) noexcept;
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

class SplitRegex {
 public:
  /// Throws InputError when the pattern can not be translated or compiled.
  explicit SplitRegex(std::string_view oniguruma_pattern);
  ~SplitRegex();
  SplitRegex(SplitRegex&&) noexcept;

  /// Calls visit(begin, end) for every match from left to right, as Oniguruma's scan does: an empty match
  /// right behind the previous one is passed over. `text` is well-formed UTF-8. Thread-safe with one scratch
  /// per thread.
  void for_each_match(std::string_view text, RegexScratch& scratch,
                      const std::function<void(size_t, size_t)>& visit) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace prefill
