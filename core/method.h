// A sparse prefill method: three calls per layer (plan, attend by the engine, observe), immutable itself,
// with all that changes during a prompt in a State that the engine owns.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/clock.h"
#include "core/config/fields.h"
#include "core/plan.h"
#include "core/registry.h"

namespace prefill {

struct ModelShape {
  std::string id;  ///< folder name of the checkpoint, or the name of a tensor workload
  int layers = 1, q_heads = 1, kv_heads = 1, head_dim = 64;
  double rope_theta = 0;         ///< base of the rotary embedding; 0: none or unknown (Prism reads it)
  std::string fingerprint = {};  ///< weights_fingerprint() of the checkpoint; "": unknown
};

/// The query heads of a model that one process computes, whole key/value groups of them: all, or a rank's
/// share (docs/kernels.md, "Two GPUs").
struct HeadRange {
  int first = 0, count = 0;
};

struct MethodEnv {
  ModelShape model;      ///< the whole model, for which artefacts are made
  HeadRange heads = {};  ///< query head h of every Qkv is head heads.first + h of the model; count 0: all

  /// Those entries of a row with one entry per query head of the model that belong to this process's heads.
  template <class T>
  std::vector<T> own(const std::vector<T>& row) const {
    if (heads.count == 0) return row;
    const auto from = row.begin() + heads.first;
    return std::vector<T>(from, from + heads.count);
  }
};

struct LayerContext {
  const Qkv& qkv;
  int layer;
  int64_t seq_len;
  const KernelBackend& backend;
  StageClock& clock;
};

class Method {
 public:
  struct State {
    virtual ~State() = default;
  };
  virtual ~Method() = default;
  virtual std::unique_ptr<State> begin_prompt(int64_t seq_len) const = 0;
  virtual AttentionPlan plan(const LayerContext&, State&) const = 0;
  virtual void observe(const LayerContext&, const AttendResult&, State&) const = 0;
  /// Facts of the prompt worth a column in the results ("shared_heads", ...); may be empty.
  virtual nlohmann::json report(const State&) const { return nlohmann::json::object(); }

  /// {"name", "params"}: what another rank makes the same method from (make_method). The registry sets it.
  nlohmann::json spec;
};

/// What a method file derives from: typed params, typed per-prompt state, no casts in sight.
template <class ParamsT, class StateT = Method::State>
class MethodOf : public Method {
 public:
  using Params = ParamsT;
  MethodOf(Params p, MethodEnv e) : params(std::move(p)), env(std::move(e)) {}
  virtual AttentionPlan plan_layer(const LayerContext&, StateT&) const = 0;
  virtual void learn(const LayerContext&, const AttendResult&, StateT&) const {}
  virtual nlohmann::json facts(const StateT&) const { return nlohmann::json::object(); }

  std::unique_ptr<State> begin_prompt(int64_t) const override { return std::make_unique<StateT>(); }
  AttentionPlan plan(const LayerContext& c, State& s) const final {
    return plan_layer(c, static_cast<StateT&>(s));
  }
  void observe(const LayerContext& c, const AttendResult& r, State& s) const final {
    learn(c, r, static_cast<StateT&>(s));
  }
  nlohmann::json report(const State& s) const final { return facts(static_cast<const StateT&>(s)); }

 protected:
  const Params params;
  const MethodEnv env;
};

/// What a method says of itself at registration.
struct MethodAbout {
  std::string name = {};
  int version = 1;              ///< bump when a number may move: it is part of every run's identity
  std::string doc = {};         ///< one line
  std::string source = {};      ///< paper and repository the rules come from
  std::string deviations = {};  ///< every deliberate difference from the source, "" when there is none
  std::string cost = {};        ///< cost of the estimate, in words and a formula
  std::string full_budget =
      {};  ///< JSON params under which the method computes every causal pair; "" when it can not
  std::string knob = {};                 ///< the main parameter, "" when there is none
  std::vector<double> knob_values = {};  ///< values along which density must not fall
  std::string test_params =
      {};  ///< JSON params that make it sparse on prompts of a few hundred tokens: the
           ///< conformance suite runs these besides the defaults; "" when the defaults do
};

struct MethodInfo : MethodAbout {
  std::string file;
  std::vector<FieldInfo> schema;
  std::function<ParamsHandle(const std::vector<const Located*>& layers, const std::string& file,
                             const std::string& base_folder, Diagnostics&)>
      read;
  /// Loads artefacts the params name (throws InputError when they do not fit the model).
  std::function<std::unique_ptr<Method>(const ParamsHandle&, const MethodEnv&)> make;
};

Registry<MethodInfo>& methods();

/// A method from JSON params ("{}": defaults). Throws InputError on bad params, Unsupported on invalid ones.
std::unique_ptr<Method> make_method(const std::string& name, const nlohmann::json& params, const MethodEnv&);

template <class M>
struct RegisterMethod {
  RegisterMethod(MethodAbout about, const char* file) {
    using P = typename M::Params;
    MethodInfo info;
    static_cast<MethodAbout&>(info) = std::move(about);
    info.file = file;
    info.schema = schema_of<P>();
    info.read = [name = info.name](const std::vector<const Located*>& layers, const std::string& yaml,
                                   const std::string& base, Diagnostics& d) {
      auto p = std::make_shared<P>(read_params<P>(layers, name, yaml, base, d));
      return ParamsHandle{to_canonical(*p), p->invalid(), p};
    };
    info.make = [name = info.name](const ParamsHandle& h, const MethodEnv& env) -> std::unique_ptr<Method> {
      auto made = std::make_unique<M>(*std::static_pointer_cast<P>(h.value), env);
      made->spec = {{"name", name}, {"params", h.canonical}};
      return made;
    };
    methods().add(std::move(info));
  }
};

/// Last line of a method file: PREFILL_METHOD(Dense, {.name = "dense", .doc = "..."})
#define PREFILL_METHOD(Class, ...)                                                                         \
  namespace {                                                                                              \
  const ::prefill::RegisterMethod<Class> registered_##Class{::prefill::MethodAbout __VA_ARGS__, __FILE__}; \
  }

}  // namespace prefill
