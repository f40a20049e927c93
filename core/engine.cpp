#include "core/engine.h"

#include <chrono>

#include "core/results/machine.h"

namespace prefill {

Registry<MethodInfo>& methods() {
  static Registry<MethodInfo> registry("method");
  return registry;
}

std::unique_ptr<Method> make_method(const std::string& name, const nlohmann::json& params,
                                    const MethodEnv& env) {
  const MethodInfo& info = methods().at(name);
  Diagnostics bad;
  const Located given = from_json(params);
  const ParamsHandle handle = info.read({&given}, "", "", bad);
  if (!bad.empty()) throw InputError(bad.front().print());
  if (!handle.invalid.empty()) throw Unsupported(str(name, ": ", handle.invalid));
  return info.make(handle, env);
}

std::string KernelBackend::hardware() const { return machine_facts().cpu; }

AttentionEngine::AttentionEngine(const Method& method, const KernelBackend& backend, StageClock& clock,
                                 int64_t seq_len)
    : method_(method),
      backend_(backend),
      clock_(clock),
      seq_len_(seq_len),
      state_(method.begin_prompt(seq_len)) {}

at::Tensor AttentionEngine::prefill(int layer, const Qkv& qkv) {
  const LayerContext context{qkv, layer, seq_len_, backend_, clock_};
  const AttentionPlan plan = method_.plan(context, *state_);
  if (check_plans) check(plan, qkv.q_heads(), seq_len_);
  if (const Support can = backend_.supports(qkv, plan); !can)
    throw Unsupported(str(backend_.name(), ": ", can.why));
  AttendResult result;
  {
    StageScope scope(clock_, Stage::attend, layer);
    result = backend_.attend(qkv, plan);
  }
  {
    StageScope scope(clock_, Stage::observe, layer);
    method_.observe(context, result, *state_);
  }
  footprints.push_back(footprint(plan));
  kernels.insert(backend_.kernel_name(qkv, plan));
  return result.out;
}

std::vector<double> AttentionEngine::layer_density() const {
  std::vector<double> out;
  for (const AttentionPlan& plan : footprints) {
    double sum = 0;
    const auto heads = density(plan, seq_len_);
    for (double d : heads) sum += d;
    out.push_back(sum / double(heads.size()));
  }
  return out;
}

double AttentionEngine::mean_density() const {
  const auto layers = layer_density();
  double sum = 0;
  for (double d : layers) sum += d;
  return layers.empty() ? 0 : sum / double(layers.size());
}

const char* stage_name(Stage stage) {
  static constexpr const char* names[kStages] = {"estimate", "select", "index", "attend", "observe"};
  return names[int(stage)];
}

namespace {
class CpuClock final : public StageClock {
 public:
  void begin(Stage stage, int) override {
    stage_ = stage;
    start_ = std::chrono::steady_clock::now();
  }
  void end() override {
    total_[size_t(stage_)] +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  std::array<double, kStages> seconds() override { return total_; }
  void reset() override { total_ = {}; }

 private:
  Stage stage_ = Stage::attend;
  std::chrono::steady_clock::time_point start_;
  std::array<double, kStages> total_{};
};
}  // namespace

std::unique_ptr<StageClock> make_cpu_clock() { return std::make_unique<CpuClock>(); }

}  // namespace prefill
