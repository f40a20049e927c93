#include "core/base/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace prefill {
namespace {

bool send_all(int fd, const void* data, size_t bytes) {
  const auto* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::send(fd, at, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n, bytes -= size_t(n);
  }
  return true;
}

bool receive_all(int fd, void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::recv(fd, at, bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n, bytes -= size_t(n);
  }
  return true;
}

}  // namespace

Channel::~Channel() { ::close(fd_); }

bool Channel::send(const nlohmann::json& head, const std::vector<int32_t>& ids) const {
  const std::string text = head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const uint64_t sizes[2] = {text.size(), ids.size()};
  return send_all(fd_, sizes, sizeof sizes) && send_all(fd_, text.data(), text.size()) &&
         send_all(fd_, ids.data(), ids.size() * sizeof(int32_t));
}

std::optional<Message> Channel::receive() const {
  uint64_t sizes[2];
  if (!receive_all(fd_, sizes, sizeof sizes)) return std::nullopt;
  std::string text(sizes[0], '\0');
  Message m;
  m.ids.resize(sizes[1]);
  if (!receive_all(fd_, text.data(), text.size()) ||
      !receive_all(fd_, m.ids.data(), m.ids.size() * sizeof(int32_t)))
    return std::nullopt;
  m.head = nlohmann::json::parse(text);
  return m;
}

}  // namespace prefill
