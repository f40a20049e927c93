// Where the time of a prompt goes. A closed list of stages, so that a stage means the same in every method's
// row.
#pragma once
#include <array>
#include <memory>
#include <string>

namespace prefill {

/// estimate: cheap scores. select: turning scores into sets. index: building the plan's CSR. attend: the
/// kernel. observe: what a method learns from the result. Scopes do not nest.
enum class Stage { estimate, select, index, attend, observe };
constexpr int kStages = 5;
const char* stage_name(Stage);

class StageClock {
 public:
  virtual ~StageClock() = default;
  virtual void begin(Stage, int layer) = 0;
  virtual void end() = 0;
  /// Seconds per stage since construction or reset. The only call that synchronises the device.
  virtual std::array<double, kStages> seconds() = 0;
  virtual void reset() = 0;
};

class StageScope {
 public:
  StageScope(StageClock& clock, Stage stage, int layer) : clock_(clock) { clock_.begin(stage, layer); }
  ~StageScope() { clock_.end(); }
  StageScope(const StageScope&) = delete;

 private:
  StageClock& clock_;
};

/// std::chrono::steady_clock; right for CPU backends.
std::unique_ptr<StageClock> make_cpu_clock();

}  // namespace prefill
