// One line of progress on stderr with the time left; whole lines, now and then, when stderr is no terminal.
#pragma once
#include <chrono>
#include <string>

namespace prefill {

class Progress {
 public:
  /// total: amount of work in any unit (the runner's is tokens weighted by cost); 0 draws nothing, below 0:
  /// not known, so no bar and no time left.
  Progress(double total, bool quiet);
  ~Progress();
  /// `work` more is done; `now` says what comes next.
  void advance(double work, const std::string& now);
  void note(const std::string& line);  ///< a full line that stays
  double elapsed_s() const;
  double seconds_per_work() const { return done_ > 0 ? elapsed_s() / done_ : 0; }

 private:
  void draw(bool last);
  double total_, done_ = 0;
  bool quiet_, terminal_;
  std::string now_;
  std::chrono::steady_clock::time_point start_, drawn_{};
};

/// 75 -> "1:15", 3725 -> "1:02:05".
std::string duration_text(double seconds);

}  // namespace prefill
