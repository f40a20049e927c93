// Perplexity and agreement: long texts that the model reads and nothing is asked about.
#include <algorithm>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/task.h"
#include "tasks/prose.h"

namespace prefill {
namespace {

// Where a window may end: behind a line's end; in lines of over 1,000 bytes before a blank; without one of
// those (scripts without blanks) between characters.
size_t next_cut(const std::string& text, size_t from) {
  const size_t line = std::min(text.find('\n', from), text.size() - 1) + 1;
  if (line - from <= 1000) return line;
  if (const size_t blank = text.find(' ', from + 1000); blank < std::min(line, from + 2000)) return blank;
  size_t cut = std::min(from + 2000, text.size());
  while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;
  return cut;
}

/// Windows of exactly request.tokens tokens, one behind the other from the start of the text, none
/// overlapping: the first five of twenty samples are the five samples. A window's text is a little longer
/// than that and its ids are cut.
class LongText : public Task {
 public:
  struct Params {
    Path text;
    template <class V>
    void fields(V& v) {
      v("text", text, any(),
        "UTF-8 text file, such as a book; empty: the prose that scripts/fetch_prose.py fetched");
    }
    std::string invalid() const { return ""; }
  };

  LongText(const char* name, Reading reading, const Params& p, const TaskRequest& r)
      : name_(name), reading_(reading), tokens_(r.tokens), prose_(read_prose(p.text, "text")) {
    if (!r.tokenizer) throw InputError(str(name_, ": an exact token length needs a tokenizer"));
    if (r.count < 1) throw InputError(str(name_, ": count must be at least 1, not ", r.count));
    if (r.tokens < 2) throw InputError(str(name_, ": tokens must be at least 2, not ", r.tokens));
    for (size_t begin = 0; int64_t(windows_.size()) < r.count; begin = windows_.back().end) {
      const size_t end = window_end(begin, *r.tokenizer);
      if (end == 0)
        throw InputError(str(name_, ": ", prose_.provenance["file"].get<std::string>(), " holds ",
                             windows_.size(), " windows of ", tokens_, " tokens, not ", r.count,
                             ": ask for fewer samples or tokens, or give a longer text"));
      windows_.push_back({begin, end});
    }
  }

  int64_t size() const override { return int64_t(windows_.size()); }
  int max_new_tokens() const override { return 0; }
  Reading reading() const override { return reading_; }
  nlohmann::json provenance() const override { return prose_.provenance; }

  Sample sample(int64_t index) const override {
    if (index < 0 || index >= size())
      throw InputError(str(name_, ": there is no sample ", index, "; there are ", size()));
    const auto [begin, end] = windows_[size_t(index)];
    Sample s;
    s.id = sample_id(index);
    s.prompt = prose_.text.substr(begin, end - begin);
    s.record = {{"id", index}, {"begin", begin}, {"end", end}};
    s.tokens = tokens_;
    return s;
  }

  Score score(const Sample&, const std::string&) const override {
    throw InputError(str(name_, " is read off the model's logits; it scores no answers"));
  }

 private:
  struct Window {
    size_t begin, end;  // bytes
  };

  // More than tokens_ ids (a special one at the end is then cut off too), as few lines as that takes; 0: the
  // text is over.
  size_t window_end(size_t begin, const Tokenizer& tokenizer) const {
    const std::string& text = prose_.text;
    size_t end = begin;
    for (int64_t have = 0; end < text.size();) {
      // Lines one by one may come to a few tokens more than together: what is missing then is added and
      // counted again.
      while (have <= tokens_ && end < text.size()) {
        const size_t cut = next_cut(text, end);
        have += int64_t(tokenizer.encode(std::string_view(text).substr(end, cut - end), false).size());
        end = cut;
      }
      have = int64_t(tokenizer.encode(std::string_view(text).substr(begin, end - begin)).size());
      if (have > tokens_) return end;
    }
    return 0;
  }

  std::string name_;
  Reading reading_;
  int64_t tokens_;
  Prose prose_;
  std::vector<Window> windows_;
};

struct Perplexity : LongText {
  Perplexity(const Params& p, const TaskRequest& r) : LongText("perplexity", Reading::likelihood, p, r) {}
};
struct Agreement : LongText {
  Agreement(const Params& p, const TaskRequest& r) : LongText("agreement", Reading::agreement, p, r) {}
};
const RegisterTask<Perplexity> perplexity_task{
    {.name = "perplexity",
     .doc = "teacher-forced next-token prediction of long text; score: "
            "1/perplexity = exp(-mean NLL), by position in details",
     .source = "as MInference experiments/ppl (PG-19), with windows of "
               "one text and a plain mean over its positions"},
    __FILE__};
const RegisterTask<Agreement> agreement_task{
    {.name = "agreement",
     .doc = "next-token distributions against dense attention on the "
            "same text; score: share of positions with the same "
            "best token, KL by position in details",
     .source = "own: the most sensitive accuracy axis for a small model"},
    __FILE__};

}  // namespace
}  // namespace prefill
