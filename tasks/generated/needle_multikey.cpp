// Multi-key needle: several sentences of one form hide a value each under a key; one key is asked for, the
// others are distractors. The form of RULER's niah_multikey_1 (Hsieh et al. 2024), scored by its string
// match.
#include "core/base/text.h"
#include "tasks/generated/generated_task.h"
#include "tasks/generated/haystack.h"
#include "tasks/generated/words.h"

namespace prefill {
namespace {

class NeedleMultikey : public GeneratedTask {
 public:
  struct Params {
    int keys = 8;
    std::string haystack = "noise";
    Path haystack_file;
    int64_t lines = 0;
    int max_new_tokens = 0;
    template <class V>
    void fields(V& v) {
      v("keys", keys, in(1, 1000), "needles in the text; one is asked for");
      v("haystack", haystack, one_of({"noise", "prose"}),
        "what the needles are hidden in: repeated noise, or sentences of prose");
      v("haystack_file", haystack_file, any(),
        "UTF-8 text for haystack: prose; empty: what scripts/fetch_prose.py fetched");
      v("lines", lines, at_least(0),
        "noise lines (or sentences) instead of a token length; 0: by token length");
      v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: 16");
    }
    std::string invalid() const { return ""; }
  };
  NeedleMultikey(const Params& p, const TaskRequest& r)
      : GeneratedTask("needle_multikey", "needle_multikey", r, 16, p.max_new_tokens, p.lines),
        keys_(p.keys),
        haystack_(p.haystack, p.haystack_file) {}
  nlohmann::json provenance() const override { return haystack_.provenance(); }

 protected:
  Draft build(int64_t index, int64_t lines, const std::string& padding) const override {
    Rng random = rng(index);
    const std::vector<std::string> names = distinct_pairs(random, keys_);
    const double at = depth(index);
    std::vector<std::pair<double, std::string>> needles;
    std::string answer;
    nlohmann::json depths = nlohmann::json::array();
    for (int k = 0; k < keys_; ++k) {
      const std::string value = std::to_string(random.between(1000000, 9999999));
      const double where = k ? random.uniform() : at;
      if (k == 0) answer = value;
      needles.emplace_back(
          where, str("One of the special magic values for ", names[size_t(k)], " is: ", value, "."));
      depths.push_back(where);
    }
    Draft d;
    const std::string context =
        padded(padding, " ") + haystack_.text(lines, std::move(needles), random.next() >> 1);
    const std::string input =
        str("What is the special magic value for ", names[0], " mentioned in the text?");
    d.prompt =
        str("There is important information hidden inside a lot of irrelevant text. Find it and memorize it. "
            "You will be asked about it.\n\n",
            context, "\n\n", input, " The special magic value for ", names[0], " is");
    d.record = {{"context", context}, {"input", input},   {"answer", nlohmann::json::array({answer})},
                {"depth", at},        {"depths", depths}, {"haystack", haystack_.kind()}};
    return d;
  }

 private:
  int keys_;
  Haystack haystack_;
};

const RegisterTask<NeedleMultikey> needle_multikey_task{
    {.name = "needle_multikey",
     .doc = "one of several keyed needles in a haystack; the others distract",
     .source = "form of RULER niah_multikey_1 (NVIDIA/RULER c3f5e3b)",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
