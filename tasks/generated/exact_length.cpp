#include "tasks/generated/exact_length.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

constexpr int tails = 12;

class Fitter {
 public:
  Fitter(const BuildPrompt& build, int64_t min_units, int64_t tokens, const Tokenizer& tokenizer,
         const std::string& what)
      : build_(build), min_units_(min_units), tokens_(tokens), tokenizer_(tokenizer), what_(what) {}

  Fitted run() {
    const int64_t least = count(min_units_, {});
    if (least > tokens_)
      throw InputError(str(what_, ": ", tokens_, " tokens are too few: the smallest prompt has ", least,
                           " under this tokenizer"));
    int64_t units = largest_units(least);
    // A gap may be smaller than the shortest padding sentence, or one unit may hold tokens in steps that no
    // padding meets: one unit less leaves more room.
    for (int64_t floor = std::max(min_units_, units - 6); units >= floor; --units) {
      const int64_t gap = tokens_ - count(units, {});
      if (gap == 0) return {units, {}};
      if (gap < 0) continue;
      if (auto padding = fill(units, gap); padding.words >= 0) return {units, padding};
    }
    throw InputError(str(what_, ": found no prompt of exactly ", tokens_,
                         " tokens under this tokenizer; the number next to it may work"));
  }

 private:
  int64_t count(int64_t units, const Padding& padding) const {
    return int64_t(tokenizer_.encode(build_(units, padding.text())).size());
  }

  // A number of units that fits and leaves room for less than one more, by secant steps: encodings of long
  // prompts cost seconds, so there should be few. Only the trend must grow: a task that draws its content
  // anew for every number of units may be shorter with a few more of them.
  int64_t largest_units(int64_t least) {
    int64_t low = min_units_, low_count = least, high = -1;  // low fits, high does not; -1: none known
    int64_t guess = min_units_ + 16;
    while (true) {
      const int64_t got = count(guess, {});
      double slope = double(got - low_count) / double(guess - low);
      if (slope <= 0) slope = double(got - least) / double(guess - min_units_);
      if (slope <= 0)
        throw InputError(str(what_, ": more content does not make the prompt longer under this tokenizer"));
      if (got <= tokens_)
        low = guess, low_count = got;
      else
        high = guess;
      guess = low + std::max<int64_t>(1, int64_t(double(tokens_ - low_count) / slope));
      if (high >= 0) guess = std::min(guess, high - 1);
      if (guess <= low || double(tokens_ - low_count) < slope) return low;
    }
  }

  // A padding of exactly `gap` tokens; words = -1 when there is none. Searched on the smallest prompt, where
  // encoding is cheap, and then checked on the real one, whose answer corrects the goal.
  Padding fill(int64_t units, int64_t gap) {
    int64_t goal = gap;
    for (int attempt = 0; attempt < 4; ++attempt) {
      const Padding p = local_fill(goal);
      if (p.words < 0) return p;
      const int64_t off = tokens_ - count(units, p);
      if (off == 0) return p;
      goal += off;
    }
    // The tokenizer merges across the edges: look at every candidate near by on the real prompt.
    for (int64_t words = std::max<int64_t>(0, gap - 8); words <= gap + 2; ++words)
      for (int tail = 0; tail < 3; ++tail)
        if (count(units, {words, tail}) == tokens_) return {words, tail};
    return {};
  }

  // Words cost one token each in the usual vocabularies; where they cost more, marks at the end make up the
  // rest.
  Padding local_fill(int64_t goal) {
    if (base_ < 0) base_ = count(min_units_, {});
    auto cost = [&](int64_t words, int tail) { return count(min_units_, {words, tail}) - base_; };
    const int64_t least = cost(0, 0);
    if (least > goal) return {};
    const double per_word = std::max(1.0, double(cost(20, 0) - least) / 20);
    const int64_t words = int64_t(double(goal - least) / per_word);
    for (int tail = 0; tail <= tails; ++tail)
      for (int64_t near = words + 2; near >= std::max<int64_t>(0, words - 2); --near)
        if (cost(near, tail) == goal) return {near, tail};
    return {};
  }

  const BuildPrompt& build_;
  const int64_t min_units_, tokens_;
  const Tokenizer& tokenizer_;
  const std::string& what_;
  int64_t base_ = -1;
};

}  // namespace

std::string Padding::text() const {
  static const char* const cycle[] = {" and", " so", " it", " went", " on"};
  if (words < 0) return "";
  std::string out = "Then";
  for (int64_t i = 0; i < words; ++i) out += cycle[i % 5];
  static const char marks[] = "!?.;:,";
  for (int i = 0; i < tail; ++i) out += marks[(i * 5 + i / 3) % 6];
  return out += '.';
}

Fitted fit_exactly(const BuildPrompt& build, int64_t min_units, int64_t tokens, const Tokenizer& tokenizer,
                   const std::string& what) {
  return Fitter(build, min_units, tokens, tokenizer, what).run();
}

}  // namespace prefill
