#include "core/base/text.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>

#include "core/base/error.h"

namespace prefill {

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = int(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = int(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row[b.size()];
}

std::string did_you_mean(std::string_view given, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  int best_distance = 1 << 30;
  for (const auto& name : known) {
    int d = edit_distance(given, name);
    // "flash" is meant to find "flashprefill": a beginning counts as near
    if (given.size() >= 3 && name.substr(0, given.size()) == given) d = std::min(d, 2);
    if (d < best_distance) best_distance = d, best = &name;
  }
  const int allowed = std::max<int>(1, std::min<int>(3, int(given.size()) / 2));
  if (!best || best_distance > allowed) return "";
  return "; did you mean '" + *best + "'?";
}

std::string number_text(double value) {
  if (!std::isfinite(value)) throw InputError(str("a number that is not finite can not be written"));
  char buffer[40];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, end);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw InputError(str(path, ": can not be read: ", std::strerror(errno)));
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  if (in.bad()) throw InputError(str(path, ": can not be read: ", std::strerror(errno)));
  return bytes;
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  const std::string aside = path + ".tmp" + std::to_string(::getpid());
  const int fd = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) throw InputError(str(aside, ": can not be written: ", std::strerror(errno)));
  auto fail = [&](const char* what) {
    const int why = errno;
    ::close(fd);
    ::unlink(aside.c_str());
    throw InputError(str(path, ": ", what, ": ", std::strerror(why)));
  };
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("can not be written");
    bytes.remove_prefix(size_t(n));
  }
  if (::fsync(fd) != 0) fail("can not be flushed to disk");
  ::close(fd);
  if (::rename(aside.c_str(), path.c_str()) != 0) {
    const int why = errno;
    ::unlink(aside.c_str());
    throw InputError(str(path, ": can not be replaced: ", std::strerror(why)));
  }
}

}  // namespace prefill
