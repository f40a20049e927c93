// The eight needle tasks of RULER (Hsieh et al. 2024; NVIDIA/RULER c3f5e3b, scripts/synthetic.yaml and
// niah.py). The form of needles, the haystacks and the placement are theirs; the wording of the prompt is our
// own, and lengths are exact.
#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/generated/generated_task.h"
#include "tasks/generated/haystack.h"
#include "tasks/generated/words.h"

namespace prefill {
namespace {

struct Spec {
  const char *name, *haystack, *keys_are, *values_are;
  int keys, values, queries;
};
constexpr Spec specs[] = {
    {"niah_single_1", "noise", "words", "numbers", 1, 1, 1},
    {"niah_single_2", "prose", "words", "numbers", 1, 1, 1},
    {"niah_single_3", "prose", "words", "uuids", 1, 1, 1},
    {"niah_multikey_1", "prose", "words", "numbers", 4, 1, 1},
    {"niah_multikey_2", "needles", "words", "numbers", 1, 1, 1},
    {"niah_multikey_3", "needles", "uuids", "uuids", 1, 1, 1},
    {"niah_multivalue", "prose", "words", "numbers", 1, 4, 1},
    {"niah_multiquery", "prose", "words", "numbers", 4, 1, 4},
};

struct NiahParams {
  std::string haystack = "default";
  Path haystack_file;
  int max_new_tokens = 0;
  template <class V>
  void fields(V& v) {
    v("haystack", haystack, one_of({"default", "noise", "prose", "needles"}),
      "what the needles are hidden in; default: as RULER has it for this task");
    v("haystack_file", haystack_file, any(),
      "UTF-8 prose in place of RULER's essays; empty: what scripts/fetch_prose.py fetched");
    v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: RULER's 128");
  }
  std::string invalid() const { return ""; }
};

std::string joined_names(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i)
    out += str(i == 0 ? "" : i + 1 == names.size() ? ", and " : ", ", names[i]);
  return out;
}

class Niah : public GeneratedTask {
 public:
  using Params = NiahParams;
  nlohmann::json provenance() const override { return haystack_.provenance(); }

 protected:
  Niah(const Spec& spec, const Params& p, const TaskRequest& r)
      : GeneratedTask(str("ruler/", spec.name), str("ruler/", spec.name), r, 128, p.max_new_tokens, 0),
        spec_(spec),
        kind_(p.haystack == "default" ? spec.haystack : p.haystack),
        haystack_(kind_ == "needles" ? "noise" : kind_, p.haystack_file) {}

  int64_t min_units() const override { return kind_ == "prose" ? 1 : spec_.keys * spec_.values; }

  Draft build(int64_t index, int64_t units, const std::string& padding) const override {
    Rng random = rng(index);
    auto key_of = [&] {
      return spec_.keys_are[0] == 'w' ? random.pick(plain_words()) + "-" + random.pick(plain_words())
                                      : random_uuid(random);
    };
    auto value_of = [&] {
      return spec_.values_are[0] == 'n' ? std::to_string(random.between(1000000, 9999999))
                                        : random_uuid(random);
    };
    auto needle_of = [&](const std::string& k, const std::string& v) {
      return str("One of the special magic ", spec_.values_are, " for ", k, " is: ", v, ".");
    };
    std::vector<std::string> keys, needles;
    std::vector<std::vector<std::string>> values;
    std::set<std::string> taken;
    while (int(keys.size()) < spec_.keys) {
      std::string k = key_of();
      if (!taken.insert(k).second) continue;
      values.emplace_back();
      for (int i = 0; i < spec_.values; ++i) {
        values.back().push_back(value_of());
        needles.push_back(needle_of(k, values.back().back()));
      }
      keys.push_back(std::move(k));
    }
    random.shuffle(needles);
    std::vector<std::string> asked(keys.begin(), keys.begin() + spec_.queries);
    nlohmann::json answer = nlohmann::json::array();
    for (int q = 0; q < spec_.queries; ++q)
      for (const auto& v : values[size_t(q)]) answer.push_back(v);

    std::vector<std::pair<double, std::string>> placed;
    std::string context = padded(padding, kind_ == "prose" ? " " : "\n");
    std::vector<double> depths;
    if (kind_ == "prose") {  // distinct ones of 40 depths from 0 to 100 %
      std::set<int64_t> steps;
      while (steps.size() < needles.size()) steps.insert(random.between(0, 39));
      for (int64_t s : steps) depths.push_back(double(s * 100 / 39) / 100);
    } else {  // distinct lines
      std::set<int64_t> lines;
      while (lines.size() < needles.size()) lines.insert(random.between(0, units - 1));
      for (int64_t l : lines) depths.push_back((double(l) + 0.5) / double(units));
    }
    for (size_t i = 0; i < needles.size(); ++i) placed.emplace_back(depths[i], needles[i]);
    if (kind_ == "needles") {
      size_t next = 0;
      for (int64_t u = 0; u < units; ++u) {
        for (; next < placed.size() && int64_t(placed[next].first * double(units)) <= u; ++next)
          context += placed[next].second + "\n";
        std::string k = key_of();
        while (taken.contains(k)) k = key_of();
        context += needle_of(k, value_of()) + (u + 1 < units ? "\n" : "");
      }
    } else {
      context += haystack_.text(units, placed, random.next() >> 1, kind_ == "prose" ? " " : "\n");
    }

    const bool one = answer.size() == 1;
    std::string things = spec_.values_are;
    if (one) things.pop_back();
    const std::string query = joined_names(asked);
    const std::string input = str(one ? "What is the special magic " : "What are all the special magic ",
                                  things, " for ", query, " mentioned in the text?");
    Draft d;
    d.prompt =
        str(one ? "A special magic " : "Some special magic ", things, one ? " is" : " are",
            " hidden in the following text. Memorize what you find; you will be asked about it afterwards.\n",
            context, "\n", input, " The special magic ", things, " for ", query, " mentioned in the text ",
            one ? "is" : "are");
    d.record = {{"context", context},      {"input", input},   {"answer", answer},
                {"depth", depths.front()}, {"depths", depths}, {"haystack", kind_}};
    return d;
  }

 private:
  Spec spec_;
  std::string kind_;
  Haystack haystack_;
};

template <int I>
struct Numbered : Niah {
  Numbered(const Params& p, const TaskRequest& r) : Niah(specs[I], p, r) {}
};
template <int... I>
void register_all(std::integer_sequence<int, I...>) {
  (RegisterTask<Numbered<I>>(
       {.name = str("ruler/", specs[I].name),
        .doc = str("needles: ", specs[I].keys, " keys, ", specs[I].values, " values each, ", specs[I].queries,
                   " asked; haystack of ", specs[I].haystack),
        .source = "NVIDIA/RULER c3f5e3b, niah.py",
        .version = 2,
        .generated = true},
       __FILE__),
   ...);
}
const bool registered_niah = (register_all(std::make_integer_sequence<int, 8>()), true);

}  // namespace
}  // namespace prefill
