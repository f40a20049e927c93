// SHA-256 (FIPS 180-4), for run identities and checksums of artefacts.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace prefill {

class Sha256 {
 public:
  Sha256();
  void update(std::string_view bytes);
  /// 64 lower-case hex digits. The object is spent afterwards.
  std::string hex();

 private:
  void block(const unsigned char* p);
  uint32_t h_[8];
  unsigned char buf_[64];
  uint64_t length_ = 0;
  size_t fill_ = 0;
};

std::string sha256_hex(std::string_view bytes);
/// Streams the file; throws InputError when it can not be read.
std::string sha256_file(const std::string& path);

}  // namespace prefill
