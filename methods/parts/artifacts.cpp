#include "methods/parts/artifacts.h"

#include "core/base/text.h"

namespace prefill {
namespace {

constexpr int kSchema = 1;

/// A member of the header, or InputError naming it.
template <class T>
T member(const nlohmann::json& object, const char* name, const std::string& path) {
  const auto it = object.find(name);
  if (it == object.end()) throw InputError(str(path, ": the artefact has no '", name, "'"));
  try {
    return it->get<T>();
  } catch (const nlohmann::json::exception&) {
    throw InputError(str(path, ": '", name, "' of the artefact has the wrong type: ", it->dump()));
  }
}

}  // namespace

void write_artifact(const std::string& path, const Artifact& a) {
  nlohmann::ordered_json model = {{"id", a.model.id}};
  if (!a.model.fingerprint.empty()) model["fingerprint"] = a.model.fingerprint;
  model.update({{"layers", a.model.layers},
                {"q_heads", a.model.q_heads},
                {"kv_heads", a.model.kv_heads},
                {"head_dim", a.model.head_dim}});
  const nlohmann::ordered_json file = {
      {"schema", kSchema},      {"method", a.method},   {"model", model}, {"data_sha256", a.data_sha256},
      {"settings", a.settings}, {"content", a.content},
  };
  write_file_atomically(path, file.dump(1) + "\n");
}

bool is_artifact(const nlohmann::json& file) { return file.is_object() && file.contains("schema"); }

nlohmann::json artifact_content(const nlohmann::json& file, const std::string& path,
                                const std::string& method, const ModelShape& model) {
  const int schema = member<int>(file, "schema", path);
  if (schema != kSchema)
    throw InputError(str(path, ": artefact schema ", schema, "; this program reads ", kSchema));
  const auto made_for = member<std::string>(file, "method", path);
  if (made_for != method)
    throw InputError(str(path, ": made for method '", made_for, "', not for '", method, "'"));
  const auto shape = member<nlohmann::json>(file, "model", path);
  auto compare = [&](const char* what, int here) {
    const int there = member<int>(shape, what, path);
    if (there != here) {
      const auto id = member<std::string>(shape, "id", path);
      throw InputError(
          str(path, ": made for model '", id, "' with ", there, " ", what, "; '", model.id, "' has ", here));
    }
  };
  compare("layers", model.layers);
  compare("q_heads", model.q_heads);
  compare("kv_heads", model.kv_heads);
  compare("head_dim", model.head_dim);
  const std::string there =
      shape.contains("fingerprint") ? member<std::string>(shape, "fingerprint", path) : std::string();
  if (!there.empty() && !model.fingerprint.empty() && there != model.fingerprint)
    throw InputError(str(path, ": made for the weights of model '", member<std::string>(shape, "id", path),
                         "' (fingerprint ", there.substr(0, 12), "); '", model.id,
                         "' has the same shape but other weights (", model.fingerprint.substr(0, 12),
                         "): 'prefillbench calibrate ", method, "' makes one for this model"));
  return member<nlohmann::json>(file, "content", path);
}

}  // namespace prefill
