// Facts of the machine, for provenance and `doctor`.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace prefill {

struct MachineFacts {
  std::string cpu, kernel, host_os;
  std::vector<std::string> isa;  ///< of avx2, fma, avx512f, avx512_bf16, amx_bf16, ...: what matters here
  int cores = 0;
  int64_t memory_bytes = 0, available_bytes = 0;
};
MachineFacts machine_facts();
int64_t peak_rss_bytes();
std::string utc_now();  ///< 2026-01-31T12:00:00Z

}  // namespace prefill
