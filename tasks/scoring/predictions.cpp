#include "tasks/scoring/predictions.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/scoring/unicode.h"

namespace prefill::scoring {
namespace {

// Lines of a file, one buffer, no copy of a line that lies inside it.
class LineReader {
 public:
  explicit LineReader(const std::string& path)
      : path_(path), file_(std::fopen(path.c_str(), "rb"), &std::fclose) {
    if (!file_) throw InputError(str(path, ": can not be read: ", std::strerror(errno)));
    buffer_.resize(1 << 20);
  }
  /// False at the end of the file. The view lives until the next call.
  bool next(std::string_view& line) {
    size_t scanned = begin_;
    while (true) {
      if (size_t end = find_end(scanned); end < end_ || eof_) {
        if (end >= end_ && begin_ == end_) return false;
        end = std::min(end, end_);
        line = {buffer_.data() + begin_, end - begin_};
        begin_ = end;
        if (begin_ < end_)
          begin_ += buffer_[begin_] == '\r' && begin_ + 1 < end_ && buffer_[begin_ + 1] == '\n' ? 2 : 1;
        return true;
      }
      scanned = end_ > begin_ ? end_ - 1 : begin_;  // a final '\r' may be half of "\r\n": look at it again
      fill(scanned);
    }
  }

 private:
  // First line end at or after `from`, end_ when there is none yet (a trailing '\r' counts only at the end of
  // file).
  size_t find_end(size_t from) const {
    const char* p = buffer_.data();
    const void* newline = std::memchr(p + from, '\n', end_ - from);
    size_t end = newline ? size_t(static_cast<const char*>(newline) - p) : end_;
    const void* cr = std::memchr(p + from, '\r', end - from);
    size_t at = cr ? size_t(static_cast<const char*>(cr) - p) : end;
    return at + 1 == end_ && at < end_ && p[at] == '\r' && !eof_ ? end_ : at;
  }
  void fill(size_t& scanned) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    scanned -= begin_;
    begin_ = 0;
    if (end_ == buffer_.size()) buffer_.resize(buffer_.size() * 2);
    size_t got = std::fread(buffer_.data() + end_, 1, buffer_.size() - end_, file_.get());
    if (got == 0) {
      if (std::ferror(file_.get())) throw InputError(str(path_, ": can not be read: ", std::strerror(errno)));
      eof_ = true;
    }
    end_ += got;
  }
  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  bool eof_ = false;
};

bool blank_line(std::string_view line) {
  for (char c : line.substr(0, 64))
    if (c == '{') return false;
  return invalid_utf8(line) == std::string_view::npos && strip(decode_utf8(line)).empty();
}

std::string id_text(const Value& id) {
  if (id.kind == Value::text) return str("\"", encode_utf8(id.string), "\"");
  return id.is_int() ? id.digits : "";
}

}  // namespace

FileScore score_file(const std::string& path, const Scorer& scorer,
                     const std::function<void(const BadRow&)>& bad_row) {
  LineReader reader(path);
  std::vector<std::string_view> wanted{"id", "prediction", "pred"};
  for (const auto& key : scorer.label_keys()) wanted.push_back(key);
  FileScore out;
  std::string label_key;
  std::unordered_map<std::string, int64_t> ids;
  std::string_view line;
  for (int64_t number = 1; reader.next(line); ++number) {
    if (blank_line(line)) continue;
    double value = 0;
    try {
      const Row row = parse_row(line, wanted);
      if (label_key.empty()) {
        for (const auto& key : scorer.label_keys())
          if (label_key.empty() && row.find(key)) label_key = key;
        if (label_key.empty()) throw PythonError{"the row has no \"ground_truth\" (nor \"label\")"};
      }
      if (const Value* id = row.find("id"))
        if (std::string text = id_text(*id); !text.empty())
          if (auto [it, fresh] = ids.emplace(text, number); !fresh)
            out.remarks.push_back(
                {number, str("id ", text, " was in line ", it->second, " already; both rows are scored")});
      const Value* prediction = row.find("prediction");
      if (!prediction) prediction = row.find("pred");
      if (!prediction) throw PythonError{"the row has no \"prediction\" (nor \"pred\")"};
      const Value* label = row.find(label_key);
      const Score score = scorer.score(*prediction, label ? *label : Value::from_text(U"XXXXXXXXXX"));
      if (!score.error.empty()) throw PythonError{score.error};
      value = score.value;
    } catch (const PythonError& e) {
      out.bad.push_back({number, e.what});
      if (bad_row) bad_row(out.bad.back());
    }
    out.per_example.push_back(value);
    out.score += value;
    ++out.n;
  }
  if (out.n == 0)
    throw InputError(
        str(path, ": no rows; a row is {\"id\": …, \"prediction\": …, \"ground_truth\": …}, one a line"));
  out.score /= double(out.n);
  return out;
}

}  // namespace prefill::scoring
