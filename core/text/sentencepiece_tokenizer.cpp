#include "core/text/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/utf8.h"

namespace prefill {
namespace {

using sentencepiece::SentencePieceProcessor;

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& path, const TokenizerConfig& config)
      : added_([this](const std::string& token) { return piece_id(token); }, 0) {
    const std::string model = read_file(path);
    load(model, path, with_prefix_);
    // A singular message field that occurs twice is merged (protobuf wire format): append
    // ModelProto.normalizer_spec { add_dummy_prefix: false } for text that follows an added token.
    load(model + std::string("\x1A\x02\x18\x00", 4), path, without_prefix_);
    prefix_everywhere_ = config.legacy.value_or(false);
    read_added(config);
    bos_ = config.bos.empty() ? with_prefix_.bos_id() : token_id(config.bos);
    eos_ = config.eos.empty() ? with_prefix_.eos_id() : token_id(config.eos);
    add_bos_ = config.add_bos.value_or(true) && bos_ >= 0;
    add_eos_ = config.add_eos.value_or(false) && eos_ >= 0;
  }

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    require_utf8(text, "text to tokenize");
    std::vector<int32_t> ids;
    if (add_special && add_bos_) ids.push_back(bos_);
    added_.split(text, false, [&](size_t begin, size_t end, int32_t id) {
      if (id >= 0) return ids.push_back(id);
      std::vector<int> part;
      const auto& processor = begin == 0 || prefix_everywhere_ ? with_prefix_ : without_prefix_;
      const auto status = processor.Encode({text.data() + begin, end - begin}, &part);
      if (!status.ok()) throw InputError(str("sentencepiece: ", status.ToString()));
      ids.insert(ids.end(), part.begin(), part.end());
    });
    if (add_special && add_eos_) ids.push_back(eos_);
    return ids;
  }

  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override {
    std::string out;
    std::vector<int> run;
    bool at_start = true;
    const auto flush = [&] {
      if (run.empty()) return;
      std::string text;
      const auto status = (at_start ? with_prefix_ : without_prefix_).Decode(run, &text);
      if (!status.ok()) throw InputError(str("sentencepiece: ", status.ToString()));
      out += text;
      run.clear();
      at_start = false;
    };
    for (int32_t id : ids) {
      if (const std::string* text = added_.text(id)) {
        if (skip_special && added_.is_special_text(*text)) continue;
        flush();
        out += *text;
        at_start = false;
      } else if (id >= 0 && id < with_prefix_.GetPieceSize()) {
        if (!skip_special && with_prefix_.IsControl(id)) {
          flush();
          out += with_prefix_.IdToPiece(id);
          at_start = false;
        } else {
          run.push_back(id);  // control pieces decode to nothing
        }
      }
    }
    flush();
    return utf8_lossy(out);
  }

  int32_t vocab_size() const override { return vocab_size_; }
  int32_t token_id(std::string_view token) const override {
    const std::string key(token);
    const int32_t added = added_.id(key);
    return added >= 0 ? added : piece_id(key);
  }
  int32_t bos_id() const override { return bos_; }
  std::vector<int32_t> eos_ids() const override {
    return eos_ >= 0 ? std::vector<int32_t>{eos_} : std::vector<int32_t>{};
  }
  std::string kind() const override { return "sentencepiece"; }

 private:
  static void load(const std::string& model, const std::string& path, SentencePieceProcessor& processor) {
    const auto status = processor.LoadFromSerializedProto(model);
    if (!status.ok())
      throw InputError(
          str(path, ": not a sentencepiece model (", model.size(), " bytes): ", status.ToString()));
  }

  int32_t piece_id(const std::string& token) const {  // the library answers unk_id for what it does not know
    const int id = with_prefix_.PieceToId(token);
    return with_prefix_.IdToPiece(id) == token ? id : -1;
  }

  void read_added(const TokenizerConfig& config) {
    const int32_t pieces = with_prefix_.GetPieceSize();
    added_ = AddedTokens([this](const std::string& token) { return piece_id(token); }, pieces);
    for (AddedToken token : config.added_by_id) {
      token.normalized = false;  // there is no normalized text here: sentencepiece normalizes on its own
      added_.add(token, true);
    }
    for (AddedToken token : config.named) {
      token.normalized = false;
      if (added_.id(token.content) < 0) added_.add(token);
    }
    added_.finish([](std::string_view text) { return std::string(text); });
    vocab_size_ = pieces;
    for (const AddedToken& token : added_.all()) vocab_size_ = std::max(vocab_size_, token.id + 1);
  }

  SentencePieceProcessor with_prefix_, without_prefix_;
  AddedTokens added_;
  int32_t bos_ = -1, eos_ = -1, vocab_size_ = 0;
  bool add_bos_ = false, add_eos_ = false, prefix_everywhere_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> read_sentencepiece_tokenizer(const std::string& path,
                                                        const TokenizerConfig& config) {
  return std::make_unique<SentencePieceTokenizer>(path, config);
}

}  // namespace prefill
