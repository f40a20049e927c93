// The fuzz corpus of the tokenizer tests: the same strings from the same seed as
// scripts/fixtures/fuzz_text.py.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace prefill::test {

std::string fixture(const std::string& name);  ///< path under tests/text/fixtures
nlohmann::json fixture_json(const std::string& name);

class Dice {  // splitmix64
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t next();
  uint64_t below(uint64_t n) { return next() % n; }

 private:
  uint64_t state_;
};

std::string fuzz_string(uint64_t seed, uint64_t index, const nlohmann::json& parts);
std::vector<int32_t> fuzz_ids(uint64_t seed, uint64_t index, uint64_t vocab_size);

constexpr uint64_t kFnvStart = 0xCBF29CE484222325ull;
uint64_t fnv1a(std::string_view data, uint64_t h = kFnvStart);

}  // namespace prefill::test
