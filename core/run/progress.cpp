#include "core/run/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace prefill {

std::string duration_text(double seconds) {
  const long s = std::max(0L, long(seconds + 0.5));
  char text[32];
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", s / 60, s % 60);
  return text;
}

Progress::Progress(double total, bool quiet)
    : total_(total), quiet_(quiet), terminal_(isatty(2) == 1), start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() { draw(true); }

double Progress::elapsed_s() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void Progress::advance(double work, const std::string& now) {
  done_ += work;
  now_ = now;
  draw(false);
}

void Progress::note(const std::string& line) {
  if (quiet_) return;
  std::fprintf(stderr, "%s%s\n", terminal_ ? "\r\033[K" : "", line.c_str());
  draw(false);
}

void Progress::draw(bool last) {
  if (quiet_ || total_ == 0 || (total_ < 0 && done_ == 0)) return;
  const auto t = std::chrono::steady_clock::now();
  const double gap = terminal_ ? 0.1 : 15;  // a log wants a line now and then, a terminal a smooth bar
  if (!last && std::chrono::duration<double>(t - drawn_).count() < gap) return;
  drawn_ = t;
  const char *begin = terminal_ ? "\r\033[K" : "", *end = terminal_ && !last ? "" : "\n";
  const char* now = last ? "" : now_.c_str();
  if (total_ < 0) {
    std::fprintf(stderr, "%s%.0f done, %s elapsed  %.60s%s", begin, done_, duration_text(elapsed_s()).c_str(),
                 now, end);
  } else {
    const double share = std::clamp(done_ / total_, 0.0, 1.0);
    const double left = done_ > 0 ? elapsed_s() * (total_ - done_) / done_ : 0;
    std::string bar(24, '.');
    std::fill_n(bar.begin(), size_t(share * 24), '#');
    std::fprintf(stderr, "%s[%s] %3.0f%%  %s elapsed, %s left  %.60s%s", begin, bar.c_str(), 100 * share,
                 duration_text(elapsed_s()).c_str(), done_ > 0 ? duration_text(left).c_str() : "?", now, end);
  }
  std::fflush(stderr);
}

}  // namespace prefill
