#include "core/results/machine.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <sstream>

namespace prefill {

MachineFacts machine_facts() {
  MachineFacts f;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    if (f.cpu.empty() && line.starts_with("model name")) f.cpu = line.substr(colon + 2);
    if (f.isa.empty() && line.starts_with("flags")) {
      const std::string flags = line.substr(colon + 1) + " ";
      for (const char* name :
           {"avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16"})
        if (flags.find(std::string(" ") + name + " ") != std::string::npos) f.isa.push_back(name);
    }
  }
  if (f.cpu.empty()) f.cpu = "unknown CPU";
  cpu_set_t set;
  CPU_ZERO(&set);
  f.cores =
      sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : int(sysconf(_SC_NPROCESSORS_ONLN));
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t kib = 0;
    words >> key >> kib;
    if (key == "MemTotal:") f.memory_bytes = kib * 1024;
    if (key == "MemAvailable:") f.available_bytes = kib * 1024;
  }
  utsname u{};
  if (uname(&u) == 0) f.kernel = std::string(u.sysname) + " " + u.release;
  std::ifstream os("/etc/os-release");
  for (std::string line; std::getline(os, line);)
    if (line.starts_with("PRETTY_NAME=")) f.host_os = line.substr(13, line.size() - 14);
  return f;
}

int64_t peak_rss_bytes() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  return int64_t(u.ru_maxrss) * 1024;
}

std::string utc_now() {
  const std::time_t t = std::time(nullptr);
  std::tm tm{};
  gmtime_r(&t, &tm);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
  return text;
}

}  // namespace prefill
