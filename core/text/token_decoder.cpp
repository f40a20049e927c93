#include "core/text/token_decoder.h"

#include <cctype>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/bpe.h"
#include "core/text/normalizer.h"
#include "core/text/utf8.h"

namespace prefill {
namespace {

std::string join(const std::vector<std::string>& parts) {
  std::string out;
  for (const auto& part : parts) out += part;
  return out;
}

class ByteLevelDecoder : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::string all;
    for (const auto& token : tokens) all += byte_level_bytes(token);
    tokens = {utf8_lossy(all)};
  }
  bool joins_bytes() const override { return true; }
};

class ByteFallbackDecoder : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (find_invalid_utf8(bytes) == std::string::npos)
        out.push_back(bytes);
      else
        for (size_t i = 0; i < bytes.size(); ++i) out.push_back("\xEF\xBF\xBD");
      bytes.clear();
    };
    for (auto& token : tokens) {
      if (const int byte = byte_of(token); byte >= 0) {
        bytes += char(byte);
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  }

 private:
  static int byte_of(const std::string& token) {  // "<0x0A>"; -1: another token
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    if (!std::isxdigit(static_cast<unsigned char>(token[3])) ||
        !std::isxdigit(static_cast<unsigned char>(token[4])))
      return -1;
    return std::stoi(token.substr(3, 2), nullptr, 16);
  }
};

class FuseDecoder : public TokenDecoder {
 public:
  void apply(std::vector<std::string>& tokens) const override { tokens = {join(tokens)}; }
};

class ReplaceDecoder : public TokenDecoder {
 public:
  ReplaceDecoder(SplitRegex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(std::vector<std::string>& tokens) const override {
    RegexScratch scratch;
    for (auto& token : tokens) token = replace_matches(token, pattern_, content_, scratch);
  }

 private:
  SplitRegex pattern_;
  std::string content_;
};

class StripDecoder : public TokenDecoder {
 public:
  StripDecoder(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (auto& token : tokens) {
      size_t begin = 0, end = token.size();
      for (size_t i = 0; i < start_ && token.compare(begin, content_.size(), content_) == 0; ++i)
        begin += content_.size();
      for (size_t i = 0; i < stop_ && end >= begin + content_.size(); ++i) {
        if (token.compare(end - content_.size(), content_.size(), content_) != 0) break;
        end -= content_.size();
      }
      token = token.substr(begin, end - begin);
    }
  }

 private:
  std::string content_;
  size_t start_, stop_;
};

class MetaspaceDecoder : public TokenDecoder {
 public:
  MetaspaceDecoder(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), prepended_(prepended) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const std::string blank = i == 0 && prepended_ ? "" : " ";
      for (size_t at = 0; (at = tokens[i].find(replacement_, at)) != std::string::npos; at += blank.size())
        tokens[i].replace(at, replacement_.size(), blank);
    }
  }

 private:
  std::string replacement_;
  bool prepended_;
};

class DecoderSequence : public TokenDecoder {
 public:
  explicit DecoderSequence(std::vector<std::unique_ptr<TokenDecoder>> parts) : parts_(std::move(parts)) {}
  void apply(std::vector<std::string>& tokens) const override {
    for (const auto& part : parts_) part->apply(tokens);
  }

 private:
  std::vector<std::unique_ptr<TokenDecoder>> parts_;
};

}  // namespace

std::string byte_level_bytes(const std::string& token) {
  std::string bytes;
  return from_byte_level(token, bytes) ? bytes : token;
}

std::unique_ptr<TokenDecoder> read_decoder(const JsonView& json) {
  if (json.is_null()) return nullptr;
  const std::string type = json.at("type").string();
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "ByteFallback") return std::make_unique<ByteFallbackDecoder>();
  if (type == "Fuse") return std::make_unique<FuseDecoder>();
  if (type == "Replace")
    return std::make_unique<ReplaceDecoder>(read_pattern(json.at("pattern")), json.at("content").string());
  if (type == "Strip") {
    const std::string content = json.at("content").string();
    if (content.empty()) json.at("content").fail("should be one character");
    return std::make_unique<StripDecoder>(content, size_t(json.at("start").integer(0, 1 << 20)),
                                          size_t(json.at("stop").integer(0, 1 << 20)));
  }
  if (type == "Metaspace") {
    const JsonView scheme = json.get("prepend_scheme");
    const bool never =
        (scheme.is_string() && scheme.string() == "never") || !json.get("add_prefix_space").boolean_or(true);
    return std::make_unique<MetaspaceDecoder>(json.at("replacement").string(), !never);
  }
  if (type == "Sequence") {
    std::vector<std::unique_ptr<TokenDecoder>> parts;
    for (const JsonView& part : json.at("decoders").items())
      if (auto one = read_decoder(part)) parts.push_back(std::move(one));
    return std::make_unique<DecoderSequence>(std::move(parts));
  }
  json.at("type").fail(str(
      "the decoder '", type,
      "' is not supported (supported: ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, Sequence)"));
}

}  // namespace prefill
