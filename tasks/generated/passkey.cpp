// Pass key and number string (InfiniteBench Retrieve.PassKey and Retrieve.Number): one sentence, hidden in
// noise, holds digits that the question asks for. Construction: specification 3.1 and 3.2; wording of the
// prompt is our own.
#include "core/base/text.h"
#include "tasks/generated/generated_task.h"
#include "tasks/generated/haystack.h"

namespace prefill {
namespace {

const char* const instruction =
    "There is important information hidden inside a lot of irrelevant text. Find it and memorize it. "
    "You will be asked about it.";

struct DigitsParams {
  std::string haystack = "noise";
  Path haystack_file;
  int64_t lines = 0;
  int max_new_tokens = 0;
  template <class V>
  void fields(V& v) {
    v("haystack", haystack, one_of({"noise", "prose"}),
      "what the needle is hidden in: repeated noise, or sentences of prose");
    v("haystack_file", haystack_file, any(),
      "UTF-8 text for haystack: prose; empty: what scripts/fetch_prose.py fetched");
    v("lines", lines, at_least(0),
      "noise lines (or sentences) instead of a token length; the published set has 5220; 0: by token length");
    v("max_new_tokens", max_new_tokens, at_least(0),
      "limit of the answer; 0: the official one (pass key 6, number 12)");
  }
  std::string invalid() const { return ""; }
};

// Five digits, each drawn alone; a leading zero is as likely as any.
std::string pass_key(Rng& rng) {
  std::string key;
  for (int i = 0; i < 5; ++i) key += char('0' + rng.below(10));
  return key;
}

// Five digits; then five times one of them is doubled in place, so that runs appear.
std::string number_string(Rng& rng) {
  std::string key = pass_key(rng);
  for (uint64_t k = 0; k < 5; ++k) {
    const size_t at = rng.below(5 + k);
    key.insert(at, 1, key[at]);
  }
  return key;
}

class HiddenDigits : public GeneratedTask {
 public:
  using Params = DigitsParams;
  nlohmann::json provenance() const override { return haystack_.provenance(); }

 protected:
  struct Kind {
    const char *name, *thing;
    int limit;
    std::string (*draw)(Rng&);
  };
  HiddenDigits(const Kind& kind, const Params& p, const TaskRequest& r)
      : GeneratedTask(kind.name, kind.name, r, kind.limit, p.max_new_tokens, p.lines),
        kind_(kind),
        haystack_(p.haystack, p.haystack_file) {}

  Draft build(int64_t index, int64_t lines, const std::string& padding) const override {
    Rng random = rng(index);
    const std::string key = kind_.draw(random), thing = kind_.thing;
    const double at = depth(index);
    Draft d;
    const std::string needle =
        str("The ", thing, " is ", key, ". Remember it. ", key, " is the ", thing, ".");
    const std::string context =
        padded(padding, " ") + haystack_.text(lines, {{at, needle}}, random.next() >> 1);
    const std::string input = str("What is the ", thing, "?");
    d.prompt = str(instruction, "\n\n", context, "\n\n", input, "\n\nThe ", thing, " is");
    d.record = {{"context", context},
                {"input", input},
                {"answer", nlohmann::json::array({key})},
                {"depth", at},
                {"haystack", haystack_.kind()}};
    return d;
  }

 private:
  Kind kind_;
  Haystack haystack_;
};

class PassKey : public HiddenDigits {
 public:
  PassKey(const Params& p, const TaskRequest& r) : HiddenDigits({"passkey", "pass key", 6, pass_key}, p, r) {}
};
class NumberString : public HiddenDigits {
 public:
  NumberString(const Params& p, const TaskRequest& r)
      : HiddenDigits({"number_string", "sequence of digits", 12, number_string}, p, r) {}
};

const RegisterTask<PassKey> passkey{
    {.name = "passkey",
     .doc = "five digits hidden in noise at a stratified depth; first digits of the answer must be equal",
     .source =
         "InfiniteBench Retrieve.PassKey (OpenBMB/InfiniteBench 88b3daa, construct_synthetic_dataset.py)",
     .version = 2,
     .generated = true},
    __FILE__};
const RegisterTask<NumberString> number{
    {.name = "number_string",
     .doc = "ten digits with repeats hidden in noise at a stratified depth",
     .source =
         "InfiniteBench Retrieve.Number (OpenBMB/InfiniteBench 88b3daa, construct_synthetic_dataset.py)",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
