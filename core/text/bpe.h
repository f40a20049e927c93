// Byte pair encoding: splits one pre-tokenized word into ids, by the merges of a tokenizer.json.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/json_view.h"

namespace prefill {

/// GPT-2's printable stand-in for a byte (the ByteLevel alphabet), as UTF-8.
const std::string& byte_level_char(unsigned char byte);
/// The bytes that a string of the ByteLevel alphabet stands for; false when another character is in it.
bool from_byte_level(std::string_view text, std::string& bytes);

/// Ids of words already met. Not thread-safe: one per thread.
class WordCache {
 public:
  WordCache();
  /// Appends the ids and returns true when the word is known.
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& out) const;
  void insert(std::string_view word, uint64_t hash, const int32_t* ids, size_t count);
  static uint64_t hash(std::string_view word) { return std::hash<std::string_view>{}(word); }
  static constexpr size_t kLongestWord = 64;  ///< longer words hardly come again

 private:
  struct Slot {
    uint64_t hash;
    uint32_t text, ids;
    uint16_t length, count;
  };  // length 0: free
  void clear();
  std::vector<Slot> slots_;
  std::string text_;
  std::vector<int32_t> ids_;
  size_t used_ = 0;
};

class Bpe {
 public:
  /// `model` is the /model object. byte_level: words come as raw bytes and the vocabulary is written in the
  /// ByteLevel alphabet; otherwise a word's code points are looked up as they are. Throws InputError.
  Bpe(const JsonView& model, bool byte_level);

  /// Appends the ids of one word. A word may be megabytes long: O(n log n).
  void encode(std::string_view word, WordCache& cache, std::vector<int32_t>& out) const;

  const std::unordered_map<std::string, int32_t>& vocabulary() const { return vocabulary_; }
  int32_t id(const std::string& token) const;  ///< -1 when there is no such token

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  struct Symbol {
    int32_t id;
    int32_t previous, next;
  };
  const Merge* find_merge(int32_t left, int32_t right) const;
  void read_merges(const JsonView& model);
  void put_unit(const std::string& unit, std::vector<Symbol>& symbols, bool& unknown_pending) const;
  void to_symbols(std::string_view word, std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(std::vector<Symbol>& symbols) const;

  std::unordered_map<std::string, int32_t> vocabulary_;
  std::unordered_map<std::string, int32_t> whole_words_;  // raw bytes; only for ignore_merges
  std::array<int32_t, 256> byte_ids_;                     // -1: not in the vocabulary
  std::vector<uint64_t> merge_keys_;                      // open addressing; all ones: free
  std::vector<Merge> merge_values_;
  uint64_t merge_mask_ = 0;
  int32_t unk_id_ = -1;
  std::string unk_token_;
  bool byte_level_, has_unk_ = false, fuse_unk_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace prefill
