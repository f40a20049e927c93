// RULER's aggregation tasks: the most common words of a long list (cwe) and of a coded text (fwe). Counts
// follow NVIDIA/RULER c3f5e3b (common_words_extraction.py, freq_words_extraction.py); words and wording are
// our own.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/generated/generated_task.h"
#include "tasks/generated/words.h"

namespace prefill {
namespace {

struct LimitParams {
  int max_new_tokens = 0;
  template <class V>
  void fields(V& v) {
    v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: RULER's own");
  }
  std::string invalid() const { return ""; }
};

std::string numbered(const std::vector<std::string>& words) {
  std::string out;
  for (size_t i = 0; i < words.size(); ++i) out += str(i ? " " : "", i + 1, ". ", words[i]);
  return out;
}

// Compounds of two plain words in random order, then those of three, and so on: as many as anybody asks for.
class Pool {
 public:
  explicit Pool(Rng random) : random_(random) {}
  // The next word that contains none of `barred`: answers are looked for as substrings, so a word around an
  // answer would count as that answer.
  std::string next(const std::vector<std::string>& barred) {
    while (true) {
      std::string word = draw();
      if (std::none_of(barred.begin(), barred.end(),
                       [&](const auto& b) { return word.find(b) != std::string::npos; }))
        return word;
    }
  }

 private:
  std::string draw() {
    const auto& words = plain_words();
    if (order_.empty()) {
      ++parts_;
      size_t compounds = 1;
      for (int p = 0; p < parts_; ++p) compounds *= words.size();
      order_.resize(compounds);
      std::iota(order_.begin(), order_.end(), 0);
      random_.shuffle(order_);
    }
    size_t i = order_.back();
    order_.pop_back();
    std::string out;
    for (int p = 0; p < parts_; ++p, i /= words.size()) out += words[i % words.size()];
    return out;
  }

  Rng random_;
  int parts_ = 1;
  std::vector<size_t> order_;  // compounds of parts_ words not given yet, by number
};

class CommonWords : public GeneratedTask {
 public:
  using Params = LimitParams;
  CommonWords(const Params& p, const TaskRequest& r)
      : GeneratedTask("ruler/cwe", "ruler/cwe", r, 120, p.max_new_tokens, 0), short_(r.tokens < 4096) {}

 protected:
  // One list: ten common words, the others rarer; in random order.
  std::string list(Rng& random, std::vector<std::string> words, int common_times, int other_times) const {
    std::vector<std::string> all;
    for (size_t i = 0; i < words.size(); ++i)
      all.insert(all.end(), size_t(i < 10 ? common_times : other_times), words[i]);
    random.shuffle(all);
    return numbered(all);
  }
  static std::string question() { return "Question: Which are the 10 most common words in the list above?"; }
  static std::string lead() { return "\nAnswer: The 10 most common words in the list above are:"; }

  Draft build(int64_t index, int64_t others, const std::string& padding) const override {
    static const std::string task =
        "Some words of the following numbered list come up much more often than others. Memorize those that "
        "come up most.\n";
    Rng random = rng(index);
    // The sample's own words, the same ones whatever the length. Those of the example are the plain words,
    // which take less room.
    std::vector<std::string> example_words = plain_words(), words;
    random.shuffle(example_words);
    example_words.resize(40);
    Pool pool{Rng(random.next())};
    while (words.size() < 10) {
      std::string word = pool.next(words);
      if (std::none_of(words.begin(), words.end(),
                       [&](const auto& w) { return w.find(word) != std::string::npos; }))
        words.push_back(std::move(word));
    }
    const std::vector<std::string> common = words;
    for (int64_t i = 0; i < others; ++i) words.push_back(pool.next(common));
    std::string example = list(random, example_words, short_ ? 3 : 10, short_ ? 1 : 3), example_answer;
    for (size_t i = 0; i < 10; ++i) example_answer += str(" ", i + 1, ". ", example_words[i]);
    Draft d;
    const std::string context = padded(padding, "\n") + list(random, words, short_ ? 6 : 30, short_ ? 1 : 3);
    d.prompt = str(task, example, "\n", question(), lead(), example_answer, "\n\n", task, context, "\n",
                   question(), lead());
    d.record = {{"context", context}, {"input", question()}, {"answer", common}};
    return d;
  }

 private:
  bool short_;  // RULER's smaller counts below 4096 tokens
};

class FrequentWords : public GeneratedTask {
 public:
  using Params = LimitParams;
  FrequentWords(const Params& p, const TaskRequest& r)
      : GeneratedTask("ruler/fwe", "ruler/fwe", r, 50, p.max_new_tokens, 0),
        vocabulary_(std::max<int64_t>(8, r.tokens / 50)) {}

 protected:
  int64_t min_units() const override { return 8; }

  // Rank k comes up floor(W k^-2 / zeta(2)) times; rank 1 is "..." and does not count.
  Draft build(int64_t index, int64_t units, const std::string& padding) const override {
    constexpr double zeta2 = 1.6449340668482264;
    const double total = double(units) * 8;  // units of several words, so that each makes the text longer
    Rng random = rng(index);
    std::vector<std::string> words{"..."};
    std::set<std::string> taken;
    while (int64_t(words.size()) < vocabulary_) {
      std::string w;
      for (int i = 0; i < 6; ++i) w += char('a' + random.below(26));
      if (taken.insert(w).second) words.push_back(w);
    }
    std::vector<std::string> all;
    for (size_t k = 0; k < words.size(); ++k)
      all.insert(all.end(), size_t(total / (double(k + 1) * double(k + 1)) / zeta2), words[k]);
    random.shuffle(all);
    std::string text;
    for (const auto& w : all) text += (text.empty() ? "" : " ") + w;
    Draft d;
    const std::string
        context = padded(padding, "\n") + text,
        input =
            "Question: Leave out the dots ('...'). Which three coded words come up most in the text above?";
    d.prompt = str("Read the following coded text and keep track of how often each coded word comes up.\n",
                   context, "\n", input, "\nAnswer: The three coded words that come up most are:");
    d.record = {{"context", context},
                {"input", input},
                {"answer", std::vector<std::string>(words.begin() + 1, words.begin() + 4)}};
    return d;
  }

 private:
  int64_t vocabulary_;
};

const RegisterTask<CommonWords> cwe{
    {.name = "ruler/cwe",
     .doc = "common words extraction: the ten words that come up ten times as often as the others",
     .source = "NVIDIA/RULER c3f5e3b, common_words_extraction.py",
     .version = 3,
     .generated = true},
    __FILE__};
const RegisterTask<FrequentWords> fwe{
    {.name = "ruler/fwe",
     .doc =
         "frequent words extraction: the three most frequent words of a coded text with zeta(2) frequencies",
     .source = "NVIDIA/RULER c3f5e3b, freq_words_extraction.py",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
