#include "core/model/safetensors.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/base/error.h"
#include "core/base/text.h"

namespace prefill {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference reader

struct DtypeName {
  const char* name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
    {"U16", at::kUInt16},
    {"U32", at::kUInt32},
    {"U64", at::kUInt64},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
};

const DtypeName* find_dtype(std::string_view name) {
  for (const auto& d : kDtypes)
    if (name == d.name) return &d;
  return nullptr;
}

/// Closes on every way out.
struct Fd {
  int fd;
  explicit Fd(int f) : fd(f) {}
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
  Fd(const Fd&) = delete;
};

/// Bytes a tensor of this shape needs; false when the number does not fit.
bool byte_size(const std::vector<int64_t>& shape, uint64_t item, uint64_t& bytes) {
  bytes = item;
  for (int64_t n : shape)
    if (__builtin_mul_overflow(bytes, uint64_t(n), &bytes)) return false;
  return true;
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

struct SafetensorsFile::Mapping {
  std::string path;
  const char* base = nullptr;
  uint64_t size = 0, data_start = 0;
  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;

  Mapping() = default;
  Mapping(const Mapping&) = delete;
  ~Mapping() {
    if (base) ::munmap(const_cast<char*>(base), size);
  }
  template <class... T>
  [[noreturn]] void fail(const T&... parts) const {
    throw InputError(str(path, ": ", parts...));
  }

  void map() {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info {};
    if (file.fd < 0 || ::fstat(file.fd, &info) != 0) fail("can not be read: ", std::strerror(errno));
    if (!S_ISREG(info.st_mode)) fail("is not a file");
    size = uint64_t(info.st_size);
    if (size < 8)
      fail("not a safetensors file: ", size, " bytes, expected at least 8 for the length of the header");
    void* p = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (p == MAP_FAILED) fail("can not be mapped: ", std::strerror(errno));
    base = static_cast<const char*>(p);
  }

  void read_header() {
    uint64_t length = 0;
    std::memcpy(&length, base, 8);
    if (length > kMaxHeader)
      fail("not a safetensors file: the header would be ", length, " bytes, at most ", kMaxHeader,
           " are allowed");
    if (length > size - 8)
      fail("truncated: the header is ", length, " bytes long, but the file ends after ", size - 8,
           " of them");
    data_start = 8 + length;
    nlohmann::json header;
    try {
      header = nlohmann::json::parse(base + 8, base + data_start, reject_duplicates());
    } catch (const nlohmann::json::exception& e) {
      fail("the header is not valid JSON: ", e.what());
    }
    if (!header.is_object()) fail("the header is not a JSON object");
    for (const auto& [name, value] : header.items()) {
      if (name == "__metadata__")
        read_metadata(value);
      else
        entries.emplace(name, read_entry(name, value));
    }
    check_layout();
  }

  /// The JSON library keeps the last of two equal keys without a word; two tensors of one name are an error.
  nlohmann::json::parser_callback_t reject_duplicates() const {
    auto seen = std::make_shared<std::set<std::string>>();
    return [this, seen](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
      if (depth == 1 && event == nlohmann::json::parse_event_t::key &&
          !seen->insert(value.get<std::string>()).second)
        fail("the header names tensor '", value.get<std::string>(), "' twice");
      return true;
    };
  }

  void read_metadata(const nlohmann::json& value) {
    if (!value.is_object()) fail("__metadata__ is not a JSON object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ '", key, "' is not a string");
      metadata[key] = text.get<std::string>();
    }
  }

  Entry read_entry(const std::string& name, const nlohmann::json& value) const {
    const auto bad = [&](const auto&... parts) { fail("tensor '", name, "': ", parts...); };
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets"))
      bad("expected an object with dtype, shape and data_offsets");
    const auto &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
    Entry e;
    if (!dtype.is_string()) bad("dtype is not a string");
    e.dtype_name = dtype.get<std::string>();
    const DtypeName* known = find_dtype(e.dtype_name);
    if (!known) {
      std::vector<std::string> names;
      for (const auto& d : kDtypes) names.emplace_back(d.name);
      bad("unknown dtype '", e.dtype_name, "'", did_you_mean(e.dtype_name, names));
    }
    e.dtype = known->type;
    if (!shape.is_array()) bad("shape is not a list");
    for (const auto& n : shape) {
      if (!n.is_number_unsigned() || n.get<uint64_t>() > uint64_t(INT64_MAX))
        bad("shape ", shape.dump(), " is not a list of sizes");
      e.shape.push_back(int64_t(n.get<uint64_t>()));
    }
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned())
      bad("data_offsets are not two byte positions");
    e.begin = offsets[0].get<uint64_t>(), e.end = offsets[1].get<uint64_t>();
    if (e.begin > e.end) bad("data_offsets [", e.begin, ", ", e.end, "] run backwards");
    uint64_t bytes = 0;
    if (!byte_size(e.shape, c10::elementSize(e.dtype), bytes) || bytes != e.end - e.begin)
      bad("data_offsets span ", e.end - e.begin, " bytes, but ", e.dtype_name, " ", shape_text(e.shape),
          " needs ", bytes);
    return e;
  }

  /// Tensors follow each other without gap or overlap from the first byte to the last of the file.
  void check_layout() const {
    std::vector<std::pair<uint64_t, const std::string*>> order;
    for (const auto& [name, e] : entries) order.emplace_back(e.begin, &name);
    std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
      return std::pair(a.first, entries.at(*a.second).end) < std::pair(b.first, entries.at(*b.second).end);
    });
    const uint64_t available = size - data_start;
    uint64_t at = 0;
    const std::string* previous = nullptr;
    for (const auto& [begin, name] : order) {
      const Entry& e = entries.at(*name);
      if (e.end > available)
        fail("truncated: tensor '", *name, "' ends at byte ", e.end, " of the data, but the file holds ",
             available);
      if (begin < at)
        fail("tensor '", *name, "' starts at byte ", begin, " inside tensor '", *previous,
             "', which ends at ", at);
      if (begin > at)
        fail("tensor '", *name, "' starts at byte ", begin, ", expected ", at, ", where the one before ends");
      at = e.end;
      previous = name;
    }
    if (at != available) fail("holds ", available, " bytes of data, but its tensors need ", at);
  }
};

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  auto mapping = std::make_shared<Mapping>();
  mapping->path = path;
  mapping->map();
  mapping->read_header();
  SafetensorsFile file;
  file.file_ = std::move(mapping);
  return file;
}

const std::string& SafetensorsFile::path() const { return file_->path; }
const std::map<std::string, SafetensorsFile::Entry>& SafetensorsFile::entries() const {
  return file_->entries;
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return file_->metadata; }

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto it = file_->entries.find(name);
  if (it == file_->entries.end()) {
    std::vector<std::string> names;
    for (const auto& [known, entry] : file_->entries) names.push_back(known);
    throw InputError(str(file_->path, ": no tensor '", name, "'", did_you_mean(name, names)));
  }
  const Entry& e = it->second;
  char* data = const_cast<char*>(file_->base + file_->data_start + e.begin);
  const auto options = at::TensorOptions().dtype(e.dtype);
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(e.dtype) !=
      0) {  // the format does not promise alignment
    at::Tensor copy = at::empty(e.shape, options);
    std::memcpy(copy.mutable_data_ptr(), data, e.end - e.begin);
    return copy;
  }
  return at::from_blob(
      data, e.shape, [keep = file_](void*) {}, options);
}

const std::string& SafetensorsFile::meta(const std::string& key) const {
  const auto it = file_->metadata.find(key);
  if (it == file_->metadata.end()) throw InputError(str(file_->path, ": the metadata lacks '", key, "'"));
  return it->second;
}

void write_safetensors(const std::string& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const auto& [name, t] : tensors) {
    const auto* d = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                 [&](const auto& x) { return x.type == t.scalar_type(); });
    if (d == std::end(kDtypes))
      throw std::logic_error(str("write_safetensors: tensor '", name, "' has a dtype without a name"));
    if (header.contains(name))
      throw std::logic_error(str("write_safetensors: tensor '", name, "' is given twice"));
    header[name] = {{"dtype", d->name}, {"shape", t.sizes().vec()}, {"data_offsets", {at, at + t.nbytes()}}};
    at += t.nbytes();
  }
  std::string text = header.is_null() ? "{}" : header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data is aligned

  const std::string aside = path + ".tmp" + std::to_string(::getpid());
  Fd file(::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  const auto fail = [&](const char* what) {
    const int why = errno;
    ::unlink(aside.c_str());
    throw InputError(str(path, ": ", what, ": ", std::strerror(why)));
  };
  const auto put = [&](const void* bytes, uint64_t n) {
    for (const char* p = static_cast<const char*>(bytes); n > 0;) {
      const ssize_t done = ::write(file.fd, p, std::min<uint64_t>(n, 1u << 30));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail("can not be written");
      p += done;
      n -= uint64_t(done);
    }
  };
  if (file.fd < 0) fail("can not be written");
  const uint64_t length = text.size();
  put(&length, 8);
  put(text.data(), length);
  for (const auto& [name, t] : tensors) {
    const at::Tensor flat = t.detach().to(at::kCPU).contiguous();
    put(flat.const_data_ptr(), flat.nbytes());
  }
  if (::fsync(file.fd) != 0) fail("can not be flushed to disk");
  if (::rename(aside.c_str(), path.c_str()) != 0) fail("can not be replaced");
}

}  // namespace prefill
