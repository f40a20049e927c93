#include "tasks/infinitebench/dataset.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <numeric>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/generated/rng.h"
#include "tasks/scoring/unicode.h"
#include "tasks/scoring/value.h"

namespace prefill::infinitebench {
namespace {

// What the tasks read; other fields may hold anything that is JSON.
constexpr const char* fields[] = {"id", "context", "content", "input", "answer", "options"};

// `what` starts the message of the InputError for text that no tokenizer takes.
nlohmann::json to_json(const scoring::Value& v, const std::string& what) {
  using scoring::Value;
  nlohmann::json out;
  switch (v.kind) {
    case Value::none:
      break;
    case Value::boolean:
      out = v.digits == "1";
      break;
    case Value::integer:
      out = nlohmann::json::parse(v.digits);
      break;
    case Value::floating:
      out = v.number;
      break;
    case Value::text:
      for (char32_t c : v.string)
        if (c >= 0xD800 && c <= 0xDFFF)
          throw InputError(str(what, " has half of a surrogate pair (\\ud800 to \\udfff)"));
      out = scoring::encode_utf8(v.string);
      break;
    case Value::list:
      out = nlohmann::json::array();
      for (const Value& item : v.items) out.push_back(to_json(item, what));
      break;
    case Value::dict:
      out = nlohmann::json::object();
      for (const auto& [key, item] : v.entries) out[scoring::encode_utf8(key)] = to_json(item, what);
      break;
  }
  return out;
}

}  // namespace

Dataset::Dataset(std::string path) : path_(std::move(path)) {
  std::ifstream in(path_, std::ios::binary);
  if (!in) throw InputError(str(path_, ": can not be read: ", std::strerror(errno)));
  std::vector<char> buffer(1 << 20);
  int64_t offset = 0, begin = 0, number = 1;
  bool content = false;  // anything but white space so far in this line
  auto end_line = [&](int64_t end) {
    if (content) lines_.push_back({begin, end - begin, number});
    begin = end + 1;
    ++number;
    content = false;
  };
  while (in.read(buffer.data(), std::streamsize(buffer.size())), in.gcount() > 0) {
    const size_t got = size_t(in.gcount());
    for (size_t i = 0; i < got;) {
      const void* hit = std::memchr(buffer.data() + i, '\n', got - i);
      const size_t stop = hit ? size_t(static_cast<const char*>(hit) - buffer.data()) : got;
      for (; i < stop && !content; ++i) content = !std::strchr(" \t\r", buffer[i]);
      if (hit) end_line(offset + int64_t(stop));
      i = stop + 1;
    }
    offset += int64_t(got);
  }
  end_line(offset);
  if (lines_.empty()) throw InputError(str(path_, ": no rows"));
}

std::string Dataset::place(int64_t index) const { return str(path_, ":", line_number(index)); }

nlohmann::json Dataset::row(int64_t index) const {
  const Line& line = lines_.at(size_t(index));
  std::string text(size_t(line.bytes), '\0');
  std::ifstream in(path_, std::ios::binary);
  if (!in.seekg(line.offset) || !in.read(text.data(), line.bytes))
    throw InputError(str(place(index), ": the file changed while it was read"));
  if (size_t bad = scoring::invalid_utf8(text); bad != std::string::npos)
    throw InputError(str(place(index), ": not UTF-8 at byte ", bad, " of the line (byte ",
                         line.offset + int64_t(bad), " of the file)"));
  scoring::Value row;
  try {
    row = scoring::parse_value(text);
  } catch (const scoring::PythonError& e) {
    throw InputError(str(place(index), ": ", e.what));
  }
  if (row.kind != scoring::Value::dict)
    throw InputError(str(place(index), ": a row must be an object with context, input, answer"));
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [key, value] : row.entries)
    for (const char* field : fields)
      if (scoring::encode_utf8(key) == field)
        out[field] = to_json(value, str(place(index), ": '", field, "'"));
  return out;
}

std::vector<int64_t> choose_rows(const Dataset& data, int64_t count, const std::string& sampling,
                                 uint64_t seed) {
  std::vector<int64_t> rows(size_t(data.size()));
  std::iota(rows.begin(), rows.end(), 0);
  if (count <= 0 || count >= data.size()) return rows;
  if (sampling != "by-length") {
    rows.resize(size_t(count));
    return rows;
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int64_t a, int64_t b) { return data.bytes(a) < data.bytes(b); });
  Rng random(seed, "by-length", 0);
  std::vector<int64_t> out;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t from = k * data.size() / count, to = (k + 1) * data.size() / count;
    out.push_back(rows[size_t(random.between(from, to - 1))]);
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace prefill::infinitebench
