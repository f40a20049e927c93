// Messages between two processes of one program over a socket: a JSON head and token ids.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

namespace prefill {

struct Message {
  nlohmann::json head;
  std::vector<int32_t> ids;
};

/// One end of a stream socket, which it closes. send() may be called beside receive() from another thread.
class Channel {
 public:
  explicit Channel(int fd) : fd_(fd) {}
  ~Channel();
  Channel(const Channel&) = delete;
  int fd() const { return fd_; }
  /// False when the other end is gone.
  bool send(const nlohmann::json& head, const std::vector<int32_t>& ids = {}) const;
  /// Waits; nothing when the other end is gone.
  std::optional<Message> receive() const;

 private:
  int fd_;
};

}  // namespace prefill
