// Offline calibration: dense prompts go through the model, a calibrator looks at every layer's Q, K, V and
// turns what it saw into an artefact (methods/parts/artifacts.h) that its method reads later.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/method.h"

namespace prefill {

class Calibrator {
 public:
  virtual ~Calibrator() = default;
  /// One layer of calibration prompt `prompt`; layers come in order, prompts one after another.
  virtual void see(const LayerContext&, int prompt) = 0;

  /// Decides a layer's attention.
  using PlanOfLayer = std::function<AttentionPlan(const LayerContext&)>;
  /// Prefills calibration prompt `prompt` so; -> its last logits [1, vocab].
  using Prefill = std::function<at::Tensor(int prompt, const PlanOfLayer&)>;
  /// Called once after see() had all prompts, for what only further prefills can tell.
  virtual void explore(int /*prompts*/, const Prefill&) {}

  struct Result {
    nlohmann::json content;  ///< of the artefact
    nlohmann::json summary;  ///< what a person wants to know about it
  };
  /// Called once, when all `prompts` (at least one) have gone through every layer. Throws InputError when
  /// they did not allow a result.
  virtual Result finish(int prompts) = 0;
};

struct CalibratorInfo {
  std::string name, doc, file;  ///< name: the method that reads the artefact
  std::string field;            ///< the method's parameter that takes the file
  std::vector<FieldInfo> schema;
  std::function<ParamsHandle(const std::vector<const Located*>& layers, const std::string& file,
                             const std::string& base_folder, Diagnostics&)>
      read;
  std::function<std::unique_ptr<Calibrator>(const ParamsHandle&, const MethodEnv&)> make;
};
Registry<CalibratorInfo>& calibrators();

/// What a calibrator says of itself; the rest of CalibratorInfo follows from its type.
struct CalibratorAbout {
  std::string name, doc, field;
};

/// C has a nested type Params and a constructor (Params, MethodEnv). One static object ends its file.
template <class C>
struct RegisterCalibrator {
  RegisterCalibrator(const CalibratorAbout& said, const char* file) {
    using P = typename C::Params;
    CalibratorInfo about;
    about.name = said.name, about.doc = said.doc, about.field = said.field;
    about.file = file;
    about.schema = schema_of<P>();
    about.read = [name = about.name](const std::vector<const Located*>& layers, const std::string& yaml,
                                     const std::string& base, Diagnostics& d) {
      auto p = std::make_shared<P>(read_params<P>(layers, "calibrate " + name, yaml, base, d));
      return ParamsHandle{to_canonical(*p), p->invalid(), p};
    };
    about.make = [](const ParamsHandle& h, const MethodEnv& env) -> std::unique_ptr<Calibrator> {
      return std::make_unique<C>(*std::static_pointer_cast<P>(h.value), env);
    };
    calibrators().add(std::move(about));
  }
};

}  // namespace prefill
