// Key-value retrieval (InfiniteBench Retrieve.KV): a JSON object of uuid pairs, one value is asked for.
// Construction: specification 3.3; wording of the prompt is our own.
#include <algorithm>

#include "core/base/text.h"
#include "tasks/generated/generated_task.h"

namespace prefill {
namespace {

class KvRetrieval : public GeneratedTask {
 public:
  struct Params {
    int64_t pairs = 0;
    int max_new_tokens = 0;
    template <class V>
    void fields(V& v) {
      v("pairs", pairs, at_least(0),
        "pairs instead of a token length; the published set has 1856 (before August 2024) or 2500; 0: by "
        "token length");
      v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: the official 50");
    }
    std::string invalid() const { return ""; }
  };
  KvRetrieval(const Params& p, const TaskRequest& r)
      : GeneratedTask("kv_retrieval", "kv_retrieval", r, 50, p.max_new_tokens, p.pairs) {}

 protected:
  int64_t min_units() const override { return 2; }

  Draft build(int64_t index, int64_t pairs, const std::string& padding) const override {
    Rng random = rng(index);
    const double at = depth(index);
    const int64_t gold = std::min(pairs - 1, int64_t(at * double(pairs)));
    std::string context = padded(padding, "\n") + "{", key, value;
    context.reserve(size_t(pairs) * 82 + 64);
    for (int64_t i = 0; i < pairs; ++i) {
      const std::string k = random_uuid(random), v = random_uuid(random);
      if (i == gold) key = k, value = v;
      context += str(i ? ", " : "", "\"", k, "\": \"", v, "\"");
    }
    context += '}';
    Draft d;
    const std::string input = str("Key: \"", key, "\"\nThe value associated with the specified key is: \"");
    d.prompt = str("Extract the value corresponding to the specified key in the JSON object below.\n\n",
                   context, "\n\n", input);
    d.record = {{"context", context}, {"input", input}, {"answer", value}, {"depth", at}, {"pairs", pairs}};
    return d;
  }
};

const RegisterTask<KvRetrieval> kv_retrieval_task{
    {.name = "kv_retrieval",
     .doc = "the value of one of many uuid keys in a JSON object",
     .source = "InfiniteBench Retrieve.KV, after Liu et al. 2023, Lost in the Middle",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
