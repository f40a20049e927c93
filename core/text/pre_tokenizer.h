// Pre-tokenizers of tokenizer.json: they cut normalized text into words that BPE never joins.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/json_view.h"
#include "core/text/split_regex.h"

namespace prefill {

/// A piece of text on its way to BPE.
struct Piece {
  std::string_view text;
  bool at_start;  ///< begins where the whole input begins (Metaspace's "first")
};

/// Texts that had to be changed live here until the ids are there.
using PieceStore = std::deque<std::string>;

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Appends the pieces of `piece` to `out`; none of them is empty.
  virtual void split(const Piece& piece, PieceStore& store, RegexScratch& scratch,
                     std::vector<Piece>& out) const = 0;
};

/// The chain of a tokenizer.json, sequences flattened.
struct PreTokenizers {
  std::vector<std::unique_ptr<PreTokenizer>> stages;
  /// The words are byte-level. The text stays as it is, BPE reads raw bytes instead of their printable
  /// stand-ins.
  bool byte_level = false;
};

/// Supported: ByteLevel (last of its chain), Split, Digits, Metaspace, Sequence. Throws InputError naming any
/// other.
PreTokenizers read_pre_tokenizers(const JsonView& json);

}  // namespace prefill
