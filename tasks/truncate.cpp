#include "tasks/truncate.h"

namespace prefill {

Truncated truncate_middle(const std::string& text, int64_t limit, const Tokenizer& tokenizer,
                          bool tail_ceil) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  Truncated out{text, int64_t(ids.size()), int64_t(ids.size()), false};
  if (out.tokens <= limit) return out;
  const int64_t head = limit / 2, tail = tail_ceil ? limit - head : head;
  std::vector<int32_t> kept(ids.begin(), ids.begin() + head);
  kept.insert(kept.end(), ids.end() - tail, ids.end());
  out.text = tokenizer.decode(kept);
  out.tokens = int64_t(tokenizer.encode(out.text).size());
  out.cut = true;
  return out;
}

}  // namespace prefill
