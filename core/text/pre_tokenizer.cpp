#include "core/text/pre_tokenizer.h"

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/normalizer.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace prefill {
namespace {

// GPT-2's own splitting, which ByteLevel applies when use_regex is set.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct Part {
  size_t begin, end;
  bool match;
};

// What becomes of matches and of the text between them. `parts` covers the text without gaps, from left to
// right; the rules are those of the reference (NormalizedString::split).
void emit(const Piece& piece, const std::vector<Part>& parts, Behavior behavior, std::vector<Piece>& out) {
  const auto put = [&](size_t begin, size_t end) {
    if (begin < end) out.push_back({piece.text.substr(begin, end - begin), piece.at_start && begin == 0});
  };
  switch (behavior) {
    case Behavior::isolated:
      for (const Part& p : parts) put(p.begin, p.end);
      return;
    case Behavior::removed:
      for (const Part& p : parts)
        if (!p.match) put(p.begin, p.end);
      return;
    case Behavior::contiguous:
    case Behavior::merged_with_previous: {
      size_t begin = 0, end = 0;
      bool any = false, previous = false;
      for (const Part& p : parts) {
        const bool join = behavior == Behavior::contiguous ? p.match == previous : p.match && !previous;
        if (!join || !any) {
          if (any) put(begin, end);
          begin = p.begin;
        }
        end = p.end;
        any = true;
        previous = p.match;
      }
      if (any) put(begin, end);
      return;
    }
    case Behavior::merged_with_next: {
      std::vector<std::pair<size_t, size_t>> joined;  // from right to left
      bool previous = false;
      for (size_t i = parts.size(); i-- > 0;) {
        const Part& p = parts[i];
        if (p.match && !previous && !joined.empty())
          joined.back().first = p.begin;
        else
          joined.emplace_back(p.begin, p.end);
        previous = p.match;
      }
      for (size_t i = joined.size(); i-- > 0;) put(joined[i].first, joined[i].second);
      return;
    }
  }
}

class Split : public PreTokenizer {
 public:
  Split(SplitRegex regex, Behavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}

  void split(const Piece& piece, PieceStore&, RegexScratch& scratch, std::vector<Piece>& out) const override {
    if (behavior_ == Behavior::isolated) {  // every family's: no need to collect
      size_t done = 0;
      const auto put = [&](size_t begin, size_t end) {
        if (begin < end) out.push_back({piece.text.substr(begin, end - begin), piece.at_start && begin == 0});
      };
      regex_.for_each_match(piece.text, scratch, [&](size_t begin, size_t end) {
        put(done, begin);
        put(begin, end);
        done = end;
      });
      put(done, piece.text.size());
      return;
    }
    std::vector<Part> parts;
    size_t done = 0;
    regex_.for_each_match(piece.text, scratch, [&](size_t begin, size_t end) {
      if (done != begin) parts.push_back({done, begin, invert_});
      parts.push_back({begin, end, !invert_});
      done = end;
    });
    if (done != piece.text.size()) parts.push_back({done, piece.text.size(), invert_});
    emit(piece, parts, behavior_, out);
  }

 private:
  SplitRegex regex_;
  Behavior behavior_;
  bool invert_;
};

class Digits : public PreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}

  void split(const Piece& piece, PieceStore&, RegexScratch&, std::vector<Piece>& out) const override {
    std::vector<Part> parts;
    size_t done = 0;
    for (size_t pos = 0; pos < piece.text.size();) {
      const size_t begin = pos;
      if (!is_numeric(next_code_point(piece.text, pos))) continue;
      if (done < begin) parts.push_back({done, begin, false});
      parts.push_back({begin, pos, true});
      done = pos;
    }
    if (done < piece.text.size()) parts.push_back({done, piece.text.size(), false});
    emit(piece, parts, individual_ ? Behavior::isolated : Behavior::contiguous, out);
  }

 private:
  bool individual_;
};

class PrefixSpace : public PreTokenizer {  // ByteLevel's add_prefix_space
 public:
  void split(const Piece& piece, PieceStore& store, RegexScratch&, std::vector<Piece>& out) const override {
    if (piece.text.starts_with(' ')) return out.push_back(piece);
    store.push_back(str(' ', piece.text));
    out.push_back({store.back(), piece.at_start});
  }
};

class Metaspace : public PreTokenizer {
 public:
  enum class Scheme { always, first, never };
  Metaspace(std::string replacement, Scheme scheme, bool split_words)
      : replacement_(std::move(replacement)), scheme_(scheme), split_words_(split_words) {}

  void split(const Piece& piece, PieceStore& store, RegexScratch&, std::vector<Piece>& out) const override {
    std::string text;
    text.reserve(piece.text.size() * 3 / 2);
    for (char c : piece.text) {
      if (c == ' ')
        text += replacement_;
      else
        text += c;
    }
    const bool prepend = scheme_ == Scheme::always || (scheme_ == Scheme::first && piece.at_start);
    if (prepend && !text.starts_with(replacement_)) text.insert(0, replacement_);
    store.push_back(std::move(text));
    const Piece whole{store.back(), piece.at_start};
    if (!split_words_) return out.push_back(whole);
    std::vector<Part> parts;
    size_t done = 0;
    for (size_t at; (at = whole.text.find(replacement_, done)) != whole.text.npos;
         done = at + replacement_.size()) {
      if (done < at) parts.push_back({done, at, false});
      parts.push_back({at, at + replacement_.size(), true});
    }
    if (done < whole.text.size()) parts.push_back({done, whole.text.size(), false});
    emit(whole, parts, Behavior::merged_with_next, out);
  }

 private:
  std::string replacement_;
  Scheme scheme_;
  bool split_words_;
};

Behavior read_behavior(const JsonView& json) {
  const std::string name = json.string();
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  json.fail(str("the behavior '", name,
                "' is not known (known: Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous)"));
}

std::unique_ptr<PreTokenizer> read_metaspace(const JsonView& json) {
  const std::string replacement = json.at("replacement").string();
  size_t end = 0;
  if (!replacement.empty()) next_code_point(replacement, end);
  if (replacement.empty() || end != replacement.size())
    json.at("replacement").fail("should be one character");
  auto scheme = Metaspace::Scheme::always;
  if (const JsonView s = json.get("prepend_scheme"); !s.is_null()) {
    const std::string name = s.string();
    if (name == "first")
      scheme = Metaspace::Scheme::first;
    else if (name == "never")
      scheme = Metaspace::Scheme::never;
    else if (name != "always")
      s.fail(str("'", name, "' is not known (known: always, first, never)"));
  }
  if (!json.get("add_prefix_space").boolean_or(true)) scheme = Metaspace::Scheme::never;
  return std::make_unique<Metaspace>(replacement, scheme, json.get("split").boolean_or(true));
}

void read_into(const JsonView& json, PreTokenizers& chain) {
  const std::string type = json.at("type").string();
  if (type == "Sequence") {
    for (const JsonView& part : json.at("pretokenizers").items()) read_into(part, chain);
    return;
  }
  if (chain.byte_level)
    json.fail("a pre-tokenizer behind ByteLevel is not supported; ByteLevel should be the last");
  if (type == "ByteLevel") {
    if (json.at("add_prefix_space").boolean()) chain.stages.push_back(std::make_unique<PrefixSpace>());
    if (json.get("use_regex").boolean_or(true))
      chain.stages.push_back(std::make_unique<Split>(SplitRegex(kGpt2Pattern), Behavior::isolated, false));
    chain.byte_level = true;
  } else if (type == "Split") {
    chain.stages.push_back(std::make_unique<Split>(read_pattern(json.at("pattern")),
                                                   read_behavior(json.at("behavior")),
                                                   json.get("invert").boolean_or(false)));
  } else if (type == "Digits") {
    chain.stages.push_back(std::make_unique<Digits>(json.at("individual_digits").boolean()));
  } else if (type == "Metaspace") {
    chain.stages.push_back(read_metaspace(json));
  } else {
    json.at("type").fail(
        str("the pre-tokenizer '", type,
            "' is not supported (supported: ByteLevel, Split, Digits, Metaspace, Sequence)"));
  }
}

}  // namespace

PreTokenizers read_pre_tokenizers(const JsonView& json) {
  PreTokenizers chain;
  if (!json.is_null()) read_into(json, chain);
  return chain;
}

}  // namespace prefill
