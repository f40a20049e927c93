#include "tests/text/fuzz_text.h"

#include "core/base/text.h"
#include "core/text/utf8.h"

namespace prefill::test {

std::string fixture(const std::string& name) {
  return std::string(PREFILL_SOURCE_DIR "/tests/text/fixtures/") + name;
}

nlohmann::json fixture_json(const std::string& name) {
  return nlohmann::json::parse(read_file(fixture(name)));
}

uint64_t Dice::next() {
  state_ += 0x9E3779B97F4A7C15ull;
  uint64_t z = state_;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}

std::string fuzz_string(uint64_t seed, uint64_t index, const nlohmann::json& parts) {
  Dice dice(seed * 1000003 + index);
  std::string out;
  const auto pick = [&](const char* key) -> const nlohmann::json& {
    const nlohmann::json& items = parts.at(key);
    return items[dice.below(items.size())];
  };
  const auto put = [&](const char* key) { out += pick(key).get_ref<const std::string&>(); };
  const auto put_from = [&](const nlohmann::json& range) {
    const auto low = range[0].get<uint64_t>(), high = range[1].get<uint64_t>();
    append_utf8(out, char32_t(low + dice.below(high - low + 1)));
  };
  for (uint64_t segments = 1 + dice.below(10); segments-- > 0;) {
    switch (dice.below(12)) {
      case 0:  // any plane
        for (uint64_t n = 1 + dice.below(4); n-- > 0;) {
          const uint64_t c = dice.below(0x110000 - 0x800);
          append_utf8(out, char32_t(c < 0xD800 ? c : c + 0x800));
        }
        break;
      case 1: {  // one script
        const nlohmann::json& block = pick("ranges");
        for (uint64_t n = 1 + dice.below(6); n-- > 0;) put_from(block);
        break;
      }
      case 2:
        for (uint64_t n = 1 + dice.below(5); n-- > 0;) put("words");
        break;
      case 3:
        put("words");
        put("contractions");
        break;
      case 4:
        for (uint64_t n = 1 + dice.below(8); n-- > 0;) out += char('0' + dice.below(10));
        break;
      case 5:
        for (uint64_t n = 1 + dice.below(6); n-- > 0;) put("blanks");
        break;
      case 6:
        put("code");
        break;
      case 7:
        put("added");
        break;
      case 8:
        put("emoji");
        break;
      case 9:  // a base and marks, in any order of combining class
        put("bases");
        for (uint64_t n = 1 + dice.below(4); n-- > 0;) put_from(pick("marks"));
        break;
      case 10:
        for (uint64_t n = 1 + dice.below(5); n-- > 0;) out += char(33 + dice.below(15));
        break;
      default:
        out.append(1 + dice.below(20), ' ');
    }
  }
  return out;
}

std::vector<int32_t> fuzz_ids(uint64_t seed, uint64_t index, uint64_t vocab_size) {
  Dice dice(seed * 1000003 + index);
  std::vector<int32_t> ids(dice.below(24));
  for (int32_t& id : ids) id = int32_t(dice.below(vocab_size + 3));
  return ids;
}

uint64_t fnv1a(std::string_view data, uint64_t h) {
  for (unsigned char c : data) h = (h ^ c) * 0x100000001B3ull;
  return h;
}

}  // namespace prefill::test
