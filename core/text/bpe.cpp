#include "core/text/bpe.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/utf8.h"

namespace prefill {
namespace {

struct ByteAlphabet {
  std::array<std::string, 256> chars;
  std::array<int, 512> bytes;  // by code point; -1: not of the alphabet
  ByteAlphabet() {
    bytes.fill(-1);
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const uint32_t c = printable ? b : next++;
      append_utf8(chars[b], c);
      bytes[c] = int(b);
    }
  }
};
const ByteAlphabet& alphabet() {
  static const ByteAlphabet table;
  return table;
}

constexpr uint64_t kFree = ~0ull;
uint64_t pair_key(int32_t left, int32_t right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }
uint64_t mix(uint64_t x) {
  x ^= x >> 32;
  x *= 0x9E3779B97F4A7C15ull;
  return x ^ x >> 29;
}

constexpr size_t kShortWord = 48;  // up to here a linear scan per merge beats a heap

}  // namespace

const std::string& byte_level_char(unsigned char byte) { return alphabet().chars[byte]; }

bool from_byte_level(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (c >= 512 || alphabet().bytes[c] < 0) return false;
    bytes += char(alphabet().bytes[c]);
  }
  return true;
}

WordCache::WordCache() : slots_(1024) {}

bool WordCache::find(std::string_view word, uint64_t hash, std::vector<int32_t>& out) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = mix(hash) & mask;; i = (i + 1) & mask) {
    const Slot& s = slots_[i];
    if (s.length == 0) return false;
    if (s.hash == hash && std::string_view(text_.data() + s.text, s.length) == word) {
      out.insert(out.end(), ids_.begin() + s.ids, ids_.begin() + s.ids + s.count);
      return true;
    }
  }
}

void WordCache::clear() {
  std::fill(slots_.begin(), slots_.end(), Slot{});
  text_.clear();
  ids_.clear();
  used_ = 0;
}

void WordCache::insert(std::string_view word, uint64_t hash, const int32_t* ids, size_t count) {
  constexpr size_t kMostSlots = size_t(1) << 18;
  if (used_ * 2 >= slots_.size()) {
    if (slots_.size() >= kMostSlots) {
      clear();
    } else {
      std::vector<Slot> old(slots_.size() * 4);
      old.swap(slots_);
      const size_t mask = slots_.size() - 1;
      for (const Slot& s : old) {
        if (s.length == 0) continue;
        size_t i = mix(s.hash) & mask;
        while (slots_[i].length != 0) i = (i + 1) & mask;
        slots_[i] = s;
      }
    }
  }
  const size_t mask = slots_.size() - 1;
  size_t i = mix(hash) & mask;
  while (slots_[i].length != 0) i = (i + 1) & mask;
  slots_[i] = {hash, uint32_t(text_.size()), uint32_t(ids_.size()), uint16_t(word.size()), uint16_t(count)};
  text_.append(word);
  ids_.insert(ids_.end(), ids, ids + count);
  ++used_;
}

Bpe::Bpe(const JsonView& model, bool byte_level) : byte_level_(byte_level) {
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (const JsonView v = model.get(affix); !v.is_null() && !v.string().empty())
      v.fail(str("'", v.string(), "' is not supported; only an empty affix is"));
  if (const JsonView dropout = model.get("dropout"); !dropout.is_null())
    if (!dropout.raw().is_number() || dropout.raw().get<double>() != 0)
      dropout.fail("random merges (dropout) are not supported; should be null or 0");
  fuse_unk_ = model.get("fuse_unk").boolean_or(false);
  byte_fallback_ = model.get("byte_fallback").boolean_or(false);
  ignore_merges_ = model.get("ignore_merges").boolean_or(false);

  const JsonView vocab = model.at("vocab");
  if (!vocab.is_object()) vocab.fail("should be an object from token to id");
  vocabulary_.reserve(vocab.raw().size() * 2);
  int64_t largest = -1;
  for (const auto& [token, id] : vocab.raw().items()) {
    if (!id.is_number_integer() ||
        (id.is_number_unsigned() ? id.get<uint64_t>() > INT32_MAX : id.get<int64_t>() < 0))
      vocab.fail(
          str("the id of '", token, "' should be an integer from 0 to ", INT32_MAX, ", is ", id.dump()));
    vocabulary_.emplace(token, id.get<int32_t>());
    largest = std::max(largest, id.get<int64_t>());
  }
  if (largest > 64 * (int64_t(vocabulary_.size()) + 1024))  // tables are indexed by id
    vocab.fail(
        str("the largest id ", largest, " does not fit a vocabulary of ", vocabulary_.size(), " tokens"));
  if (const JsonView unk = model.get("unk_token"); !unk.is_null()) {
    has_unk_ = true;
    unk_token_ = unk.string();
    unk_id_ = id(unk_token_);
  }
  for (int b = 0; b < 256; ++b) byte_ids_[size_t(b)] = id(byte_level_char(static_cast<unsigned char>(b)));
  if (ignore_merges_) {
    std::string bytes;
    for (const auto& [token, id] : vocabulary_) {
      if (!byte_level_)
        whole_words_.emplace(token, id);
      else if (from_byte_level(token, bytes))
        whole_words_.emplace(bytes, id);
    }
  }
  read_merges(model);
}

void Bpe::read_merges(const JsonView& model) {
  const JsonView merges = model.at("merges");
  if (!merges.is_array()) merges.fail("should be a list of \"a b\" or [\"a\", \"b\"]");
  const auto& list = merges.raw();
  size_t capacity = 16;
  while (capacity < list.size() * 2) capacity *= 2;
  merge_keys_.assign(capacity, kFree);
  merge_values_.resize(capacity);
  merge_mask_ = capacity - 1;

  uint32_t rank = 0;
  std::string left, right;
  for (size_t i = 0; i < list.size(); ++i) {
    const auto fail = [&](const std::string& message) {
      JsonView(list[i], merges.file(), str(merges.path(), "/", i)).fail(message);
    };
    const auto& entry = list[i];
    if (entry.is_string()) {
      const auto& line = entry.get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;  // the first line of a merges.txt
      const size_t space = line.find(' ');
      if (space == line.npos || line.find(' ', space + 1) != line.npos)
        fail(str("'", line, "' should be two tokens with one space between"));
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    } else {
      fail("should be \"a b\" or [\"a\", \"b\"]");
    }
    const int32_t a = id(left), b = id(right);
    if (a < 0 || b < 0) fail(str("'", a < 0 ? left : right, "' is not in the vocabulary"));
    left += right;
    const int32_t joined = id(left);
    if (joined < 0) fail(str("the result '", left, "' is not in the vocabulary"));
    const uint64_t key = pair_key(a, b);
    uint64_t slot = mix(key) & merge_mask_;
    while (merge_keys_[slot] != kFree && merge_keys_[slot] != key) slot = (slot + 1) & merge_mask_;
    merge_keys_[slot] = key;
    merge_values_[slot] = {rank++,
                           joined};  // of a pair listed twice the last one counts, as in the reference
  }
}

int32_t Bpe::id(const std::string& token) const {
  auto it = vocabulary_.find(token);
  return it == vocabulary_.end() ? -1 : it->second;
}

const Bpe::Merge* Bpe::find_merge(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  for (uint64_t slot = mix(key) & merge_mask_;; slot = (slot + 1) & merge_mask_) {
    if (merge_keys_[slot] == key) return &merge_values_[slot];
    if (merge_keys_[slot] == kFree) return nullptr;
  }
}

// A character that is not in the vocabulary: its UTF-8 bytes as <0xXX>, or the unknown token, or nothing at
// all. An unknown token waits for the next known character (fuse_unk joins neighbours); byte tokens do not
// flush it.
void Bpe::put_unit(const std::string& unit, std::vector<Symbol>& symbols, bool& unknown_pending) const {
  if (byte_fallback_) {
    std::vector<int32_t> ids;
    for (unsigned char b : unit) {
      static const char* kHex = "0123456789ABCDEF";
      const int32_t byte_id = id(str("<0x", kHex[b >> 4], kHex[b & 15], ">"));
      if (byte_id < 0) break;
      ids.push_back(byte_id);
    }
    if (ids.size() == unit.size()) {
      for (int32_t i : ids) symbols.push_back({i, 0, 0});
      return;
    }
  }
  if (!has_unk_) return;
  if (unk_id_ < 0)
    throw InputError(str("the tokenizer's unk_token '", unk_token_, "' is needed but not in its vocabulary"));
  if (unknown_pending && !fuse_unk_) symbols.push_back({unk_id_, 0, 0});
  unknown_pending = true;
}

void Bpe::to_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  bool unknown_pending = false;
  const auto known = [&](int32_t i) {
    if (unknown_pending) symbols.push_back({unk_id_, 0, 0});
    unknown_pending = false;
    symbols.push_back({i, 0, 0});
  };
  if (byte_level_) {
    for (char c : word) {
      const auto b = static_cast<unsigned char>(c);
      if (byte_ids_[b] >= 0)
        known(byte_ids_[b]);
      else
        put_unit(byte_level_char(b), symbols, unknown_pending);
    }
  } else {
    std::string unit;
    for (size_t pos = 0; pos < word.size();) {
      const size_t start = pos;
      next_code_point(word, pos);
      unit.assign(word.substr(start, pos - start));
      if (const int32_t i = id(unit); i >= 0)
        known(i);
      else
        put_unit(unit, symbols, unknown_pending);
    }
  }
  if (unknown_pending) symbols.push_back({unk_id_, 0, 0});
}

// Lowest rank first, leftmost of equals: by scanning.
void Bpe::merge_short(std::vector<Symbol>& symbols) const {
  std::array<const Merge*, kShortWord> merge;  // of symbols i and i + 1
  size_t n = symbols.size();
  for (size_t i = 0; i + 1 < n; ++i) merge[i] = find_merge(symbols[i].id, symbols[i + 1].id);
  for (;;) {
    size_t best = n;
    uint32_t rank = UINT32_MAX;
    for (size_t i = 0; i + 1 < n; ++i)
      if (merge[i] && merge[i]->rank < rank) rank = merge[i]->rank, best = i;
    if (best == n) break;
    symbols[best].id = merge[best]->id;
    for (size_t i = best + 1; i + 1 < n; ++i) {
      symbols[i] = symbols[i + 1];
      merge[i] = merge[i + 1];
    }
    --n;
    if (best > 0) merge[best - 1] = find_merge(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < n) merge[best] = find_merge(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(n);
}

// The same by a heap over a linked list, for words of any length.
void Bpe::merge_long(std::vector<Symbol>& symbols) const {
  struct Candidate {
    uint32_t rank;
    int32_t position, left, right;
    bool operator<(const Candidate& other) const {  // std::priority_queue takes the largest
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  std::vector<Candidate> store;
  store.reserve(symbols.size());
  const auto n = int32_t(symbols.size());
  for (int32_t i = 0; i < n; ++i) {
    symbols[size_t(i)].previous = i - 1;
    symbols[size_t(i)].next = i + 1 < n ? i + 1 : -1;
    if (i + 1 < n)
      if (const Merge* m = find_merge(symbols[size_t(i)].id, symbols[size_t(i) + 1].id))
        store.push_back({m->rank, i, symbols[size_t(i)].id, symbols[size_t(i) + 1].id});
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>{}, std::move(store));
  const auto offer = [&](int32_t position) {
    const Symbol& left = symbols[size_t(position)];
    const Symbol& right = symbols[size_t(left.next)];
    if (const Merge* m = find_merge(left.id, right.id)) queue.push({m->rank, position, left.id, right.id});
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[size_t(top.position)];
    if (left.id != top.left || left.next < 0 || symbols[size_t(left.next)].id != top.right)
      continue;  // outdated
    Symbol& right = symbols[size_t(left.next)];
    left.id = find_merge(top.left, top.right)->id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[size_t(left.next)].previous = top.position;
    if (left.previous >= 0) offer(left.previous);
    if (left.next >= 0) offer(top.position);
  }
  std::erase_if(symbols, [](const Symbol& s) { return s.id < 0; });
}

void Bpe::encode(std::string_view word, WordCache& cache, std::vector<int32_t>& out) const {
  if (word.empty()) return;
  const bool cached = word.size() <= WordCache::kLongestWord;
  const uint64_t hash = cached ? WordCache::hash(word) : 0;
  if (cached && cache.find(word, hash, out)) return;
  const size_t before = out.size();
  bool whole = false;
  if (ignore_merges_)
    if (auto it = whole_words_.find(std::string(word)); it != whole_words_.end())
      out.push_back(it->second), whole = true;
  if (!whole) {
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    to_symbols(word, symbols);
    if (symbols.size() <= kShortWord)
      merge_short(symbols);
    else
      merge_long(symbols);
    for (const Symbol& s : symbols) out.push_back(s.id);
  }
  if (cached) cache.insert(word, hash, out.data() + before, out.size() - before);
}

}  // namespace prefill
