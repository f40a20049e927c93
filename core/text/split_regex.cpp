#include "core/text/split_regex.h"

#include <pcre2.h>

#include <stdexcept>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/utf8.h"

namespace prefill {

struct RegexScratch::State {
  pcre2_match_data* match = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  State() {
    match = pcre2_match_data_create(1, nullptr);
    context = pcre2_match_context_create(nullptr);
    stack = pcre2_jit_stack_create(64 * 1024, 64 * 1024 * 1024, nullptr);
    if (!match || !context) throw std::bad_alloc();
    // A run of millions of blanks is legal text: no limit on steps, the patterns are the tokenizer's own.
    pcre2_set_match_limit(context, UINT32_MAX);
    pcre2_set_depth_limit(context, UINT32_MAX);
    pcre2_set_heap_limit(context, UINT32_MAX);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~State() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

RegexScratch::RegexScratch() : state_(std::make_unique<State>()) {}
RegexScratch::~RegexScratch() = default;
RegexScratch::RegexScratch(RegexScratch&&) noexcept = default;

struct SplitRegex::Code {
  pcre2_code* code = nullptr;
  bool jit = false;
  std::string pattern;
  ~Code() { pcre2_code_free(code); }
};

SplitRegex::SplitRegex(std::string_view oniguruma_pattern) : code_(std::make_unique<Code>()) {
  code_->pattern = oniguruma_pattern;
  const std::string translated = translate_oniguruma(oniguruma_pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // Oniguruma's Ruby syntax: ^ and $ match at every line.
  code_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!code_->code) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof message);
    throw InputError(str("regular expression '", oniguruma_pattern, "': ", reinterpret_cast<char*>(message)));
  }
  code_->jit = pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE) == 0;
}

SplitRegex::~SplitRegex() = default;
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;

void SplitRegex::for_each_match(std::string_view text, RegexScratch& scratch,
                                const std::function<void(size_t, size_t)>& visit) const {
  auto& state = scratch.state();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(state.match);
  size_t from = 0, last_end = 0;
  bool matched_before = false;
  while (from <= text.size()) {
    const int rc =
        code_->jit ? pcre2_jit_match(code_->code, subject, text.size(), from, 0, state.match, state.context)
                   : pcre2_match(code_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, state.match,
                                 state.context);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) {
      PCRE2_UCHAR message[256];
      pcre2_get_error_message(rc, message, sizeof message);
      throw std::runtime_error(str("regular expression '", code_->pattern, "' failed at byte ", from, " of ",
                                   text.size(), ": ", reinterpret_cast<char*>(message)));
    }
    const size_t begin = span[0], end = span[1];
    if (begin == end && matched_before && begin == last_end) {
      if (from >= text.size()) return;
      next_code_point(text, from);
      continue;
    }
    matched_before = true;
    last_end = from = end;
    visit(begin, end);
  }
}

}  // namespace prefill
