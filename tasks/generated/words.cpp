#include "tasks/generated/words.h"

#include <set>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {

const std::vector<std::string>& plain_words() {
  static const std::vector<std::string> words = [] {
    std::vector<std::string> out;
    std::istringstream in(
        "apple river stone cloud tiger lamp forest silver copper garden window bridge candle desert engine "
        "falcon guitar "
        "hammer island jacket kitten ladder magnet needle orange pepper quartz rabbit saddle temple umbrella "
        "valley walnut "
        "yellow zebra anchor basket carpet dragon eagle feather glacier harbor insect jungle kernel lemon "
        "mirror napkin "
        "oyster pencil quilt rocket shadow ticket urchin velvet whistle yogurt zipper");
    for (std::string word; in >> word;) out.push_back(word);
    return out;
  }();
  return words;
}

std::vector<std::string> distinct_pairs(Rng& rng, int count) {
  const auto& words = plain_words();
  if (size_t(count) > words.size() * words.size() / 2)
    throw InputError(str("at most ", words.size() * words.size() / 2, " different keys, not ", count));
  std::set<std::string> seen;
  std::vector<std::string> out;
  while (out.size() < size_t(count)) {
    std::string key = rng.pick(words) + "-" + rng.pick(words);
    if (seen.insert(key).second) out.push_back(std::move(key));
  }
  return out;
}

}  // namespace prefill
