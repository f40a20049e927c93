#include "core/text/normalizer.h"

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/text/unicode.h"

namespace prefill {
namespace {

class Nfc : public Normalizer {
 public:
  bool leaves_alone(std::string_view text) const override { return surely_nfc(text); }
  std::string apply(std::string_view text, RegexScratch&) const override { return nfc(text); }
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  bool leaves_alone(std::string_view text) const override { return text.empty() || prefix_.empty(); }
  std::string apply(std::string_view text, RegexScratch&) const override {
    return text.empty() ? std::string() : str(prefix_, text);
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(SplitRegex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  bool leaves_alone(std::string_view text) const override { return text.empty(); }
  std::string apply(std::string_view text, RegexScratch& scratch) const override {
    return replace_matches(text, pattern_, content_, scratch);
  }

 private:
  SplitRegex pattern_;
  std::string content_;
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  bool leaves_alone(std::string_view text) const override {
    for (const auto& part : parts_)
      if (!part->leaves_alone(text)) return false;
    return true;
  }
  std::string apply(std::string_view text, RegexScratch& scratch) const override {
    std::string out(text);
    for (const auto& part : parts_)
      if (!part->leaves_alone(out)) out = part->apply(out, scratch);
    return out;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

}  // namespace

SplitRegex read_pattern(const JsonView& json) {
  const JsonView literal = json.get("String"), regex = json.get("Regex");
  if (literal.is_null() == regex.is_null()) json.fail("should be {\"String\": ...} or {\"Regex\": ...}");
  const JsonView& given = literal.is_null() ? regex : literal;
  try {
    return SplitRegex(literal.is_null() ? given.string() : escape_regex(given.string()));
  } catch (const InputError& e) {
    given.fail(e.what());
  }
}

std::string replace_matches(std::string_view text, const SplitRegex& pattern, std::string_view content,
                            RegexScratch& scratch) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t done = 0;
  pattern.for_each_match(text, scratch, [&](size_t begin, size_t end) {
    out.append(text.substr(done, begin - done)).append(content);
    done = end;
  });
  return out.append(text.substr(done));
}

std::unique_ptr<Normalizer> read_normalizer(const JsonView& json) {
  if (json.is_null()) return nullptr;
  const std::string type = json.at("type").string();
  if (type == "NFC") return std::make_unique<Nfc>();
  if (type == "Prepend") return std::make_unique<Prepend>(json.at("prepend").string());
  if (type == "Replace")
    return std::make_unique<Replace>(read_pattern(json.at("pattern")), json.at("content").string());
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> parts;
    for (const JsonView& part : json.at("normalizers").items())
      if (auto one = read_normalizer(part)) parts.push_back(std::move(one));
    return std::make_unique<NormalizerSequence>(std::move(parts));
  }
  json.at("type").fail(
      str("the normalizer '", type, "' is not supported (supported: NFC, Prepend, Replace, Sequence)"));
}

}  // namespace prefill
