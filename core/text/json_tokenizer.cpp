#include "core/text/json_tokenizer.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/added_tokens.h"
#include "core/text/bpe.h"
#include "core/text/normalizer.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/token_decoder.h"
#include "core/text/utf8.h"

namespace prefill {
namespace {

// What one call of encode() needs. Kept between calls so that the word cache pays off over many short texts.
struct Scratch {
  RegexScratch regex;
  WordCache words;
  std::vector<Piece> pieces, next;
  PieceStore store;
};

class ScratchPool {
 public:
  std::unique_ptr<Scratch> take() {
    std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Scratch>();
    auto one = std::move(free_.back());
    free_.pop_back();
    return one;
  }
  void give_back(std::unique_ptr<Scratch> one) {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(one));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

// Ids put around the text (a TemplateProcessing post-processor, or several).
struct Frame {
  std::vector<int32_t> before, after;
};

void read_template(const JsonView& json, Frame& frame) {
  const JsonView specials = json.at("special_tokens");
  Frame mine;
  bool behind_text = false;
  for (const JsonView& piece : json.at("single").items()) {
    if (const JsonView sequence = piece.get("Sequence"); !sequence.is_null()) {
      if (behind_text || sequence.at("id").string() != "A")
        piece.fail("should be the one text sequence, 'A'");
      behind_text = true;
      continue;
    }
    const std::string name = piece.at("SpecialToken").at("id").string();
    for (const JsonView& id : specials.at(name).at("ids").items())
      (behind_text ? mine.after : mine.before).push_back(int32_t(id.integer(0, INT32_MAX)));
  }
  if (!behind_text) json.at("single").fail("has no text sequence 'A'");
  frame.before.insert(frame.before.begin(), mine.before.begin(), mine.before.end());
  frame.after.insert(frame.after.end(), mine.after.begin(), mine.after.end());
}

void read_post_processor(const JsonView& json, Frame& frame) {
  if (json.is_null()) return;
  const std::string type = json.at("type").string();
  if (type == "TemplateProcessing") return read_template(json, frame);
  if (type == "ByteLevel") return;  // mends offsets only
  if (type == "Sequence") {
    for (const JsonView& part : json.at("processors").items()) read_post_processor(part, frame);
    return;
  }
  json.at("type").fail(str("the post-processor '", type,
                           "' is not supported (supported: TemplateProcessing, ByteLevel, Sequence)"));
}

Bpe read_model(const JsonView& model, bool byte_level) {
  const JsonView type = model.get("type");  // files from before 2020 have none
  if (!type.is_null() && type.string() != "BPE")
    type.fail(str("the model '", type.string(), "' is not supported (supported: BPE)"));
  return Bpe(model, byte_level);
}

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(const JsonView& json, const TokenizerConfig& config)
      : normalizer_(read_normalizer(json.get("normalizer"))),
        pre_tokenizers_(read_pre_tokenizers(json.get("pre_tokenizer"))),
        decoder_(read_decoder(json.get("decoder"))),
        bpe_(read_model(json.at("model"), pre_tokenizers_.byte_level)),
        added_([this](const std::string& token) { return bpe_.id(token); },
               int32_t(bpe_.vocabulary().size())) {
    // Truncation and padding of the file are for training batches: transformers switches them off, and so do
    // we.
    read_post_processor(json.get("post_processor"), frame_);
    read_added(json.get("added_tokens"), config);
    name_ids(config);
    if (decoder_ && decoder_->joins_bytes())
      for (const std::string& text : texts_) bytes_.push_back(byte_level_bytes(text));
  }

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    require_utf8(text, "text to tokenize");
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 4 + 8);
    if (add_special) ids = frame_.before;
    auto scratch = pool_.take();
    added_.split(text, false, [&](size_t begin, size_t end, int32_t id) {
      if (id >= 0)
        ids.push_back(id);
      else
        encode_stretch(text.substr(begin, end - begin), begin == 0, *scratch, ids);
    });
    pool_.give_back(std::move(scratch));
    if (add_special) ids.insert(ids.end(), frame_.after.begin(), frame_.after.end());
    return ids;
  }

  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override {
    // ids that do not exist vanish, as in the reference
    const auto printed = [&](int32_t id) {
      return id >= 0 && size_t(id) < texts_.size() && !texts_[size_t(id)].empty() &&
             !(skip_special && special_[size_t(id)]);
    };
    std::string out;
    if (!bytes_.empty()) {
      out.reserve(ids.size() * 5);
      for (int32_t id : ids)
        if (printed(id)) out += bytes_[size_t(id)];
      return find_invalid_utf8(out) == std::string::npos ? out : utf8_lossy(out);
    }
    std::vector<std::string> tokens;
    for (int32_t id : ids)
      if (printed(id)) tokens.push_back(texts_[size_t(id)]);
    if (decoder_) decoder_->apply(tokens);
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i && !decoder_) out += ' ';
      out += tokens[i];
    }
    return out;
  }

  int32_t vocab_size() const override { return int32_t(texts_.size()); }
  int32_t token_id(std::string_view token) const override {
    const std::string key(token);
    const int32_t added = added_.id(key);
    return added >= 0 ? added : bpe_.id(key);
  }
  int32_t bos_id() const override { return bos_; }
  std::vector<int32_t> eos_ids() const override { return eos_; }
  std::string kind() const override {
    return pre_tokenizers_.byte_level ? "byte-level BPE" : "BPE with byte fallback";
  }

 private:
  void read_added(const JsonView& list, const TokenizerConfig& config) {
    if (!list.is_null())
      for (const JsonView& token : list.items()) added_.add(read_added_token(token));
    // As transformers does it: added_tokens_decoder wins over the file, everything else only adds what is
    // missing.
    for (const AddedToken& token : config.added_by_id)
      if (config.has_added_tokens_decoder || added_.id(token.content) < 0) added_.add(token);
    for (const AddedToken& token : config.named)
      if (added_.id(token.content) < 0) added_.add(token);
    RegexScratch scratch;
    added_.finish([&](std::string_view text) {
      return normalizer_ ? normalizer_->apply(text, scratch) : std::string(text);
    });
    const auto put = [&](int32_t id, const std::string& text) {
      if (size_t(id) >= texts_.size()) texts_.resize(size_t(id) + 1);
      texts_[size_t(id)] = text;
    };
    for (const auto& [token, id] : bpe_.vocabulary()) put(id, token);
    for (const AddedToken& token : added_.all()) put(token.id, *added_.text(token.id));
    for (const std::string& text : texts_) special_.push_back(added_.is_special_text(text));
  }

  void name_ids(const TokenizerConfig& config) {
    if (!config.bos.empty())
      bos_ = token_id(config.bos);
    else if (!frame_.before.empty())
      bos_ = frame_.before.front();
    if (const int32_t eos = config.eos.empty() ? -1 : token_id(config.eos); eos >= 0) eos_ = {eos};
  }

  // A stretch of input without raw added tokens.
  void encode_stretch(std::string_view raw, bool at_start, Scratch& scratch,
                      std::vector<int32_t>& ids) const {
    std::string normalized;
    std::string_view text = raw;
    if (normalizer_ && !normalizer_->leaves_alone(raw))
      text = normalized = normalizer_->apply(raw, scratch.regex);
    added_.split(text, true, [&](size_t begin, size_t end, int32_t id) {
      if (id >= 0)
        ids.push_back(id);
      else
        encode_words({text.substr(begin, end - begin), at_start && begin == 0}, scratch, ids);
    });
  }

  void encode_words(const Piece& piece, Scratch& scratch, std::vector<int32_t>& ids) const {
    auto& pieces = scratch.pieces;
    pieces.assign(1, piece);
    scratch.store.clear();
    for (const auto& stage : pre_tokenizers_.stages) {
      scratch.next.clear();
      for (const Piece& one : pieces) stage->split(one, scratch.store, scratch.regex, scratch.next);
      pieces.swap(scratch.next);
    }
    for (const Piece& word : pieces) bpe_.encode(word.text, scratch.words, ids);
  }

  std::unique_ptr<Normalizer> normalizer_;
  PreTokenizers pre_tokenizers_;
  std::unique_ptr<TokenDecoder> decoder_;
  Bpe bpe_;
  AddedTokens added_;
  Frame frame_;
  std::vector<std::string> texts_;  // by id; "": no such id
  std::vector<std::string> bytes_;  // by id, when decoding is joining bytes; else empty
  std::vector<bool> special_;       // by id
  int32_t bos_ = -1;
  std::vector<int32_t> eos_;
  mutable ScratchPool pool_;
};

}  // namespace

std::unique_ptr<Tokenizer> read_json_tokenizer(const JsonView& json, const TokenizerConfig& config) {
  return std::make_unique<JsonTokenizer>(json, config);
}

}  // namespace prefill
