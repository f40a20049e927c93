// Plain English words for keys and lists.
#pragma once
#include <string>
#include <vector>

#include "tasks/generated/rng.h"

namespace prefill {

const std::vector<std::string>& plain_words();
/// `count` different keys of the form "word-word". Throws InputError when there are not so many.
std::vector<std::string> distinct_pairs(Rng& rng, int count);

}  // namespace prefill
