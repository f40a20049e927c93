#include "core/run/experiment.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "core/backend.h"
#include "core/base/hash.h"

namespace prefill {
namespace fs = std::filesystem;
namespace {

/// Base params, and what a sweep point changes.
struct Point {
  Located changes;  // a map
};

Located empty_map() {
  Located m;
  m.kind = Located::map;
  return m;
}

Located with(const Located& map, const Located& key, const Located& value) {
  Located out = map;
  for (auto& [k, v] : out.entries)
    if (k.text == key.text) return v = value, out;
  out.entries.emplace_back(key, value);
  return out;
}

std::string scalar_text(const Located& v) {
  if (v.kind != Located::list) return v.text;
  std::string out;
  for (const auto& item : v.items) out += (out.empty() ? "" : ",") + scalar_text(item);
  return "[" + out + "]";
}

/// Where the last file that params name is written, else `otherwise`.
Place source_place(const std::vector<FieldInfo>& schema, const std::vector<const Located*>& layers,
                   const Located& otherwise) {
  const Located* at = &otherwise;
  for (const Located* layer : layers)
    for (const FieldInfo& f : schema)
      if (const Located* file = f.type == FieldType<Path>::name ? layer->find(f.name) : nullptr) at = file;
  return {at->line, at->column};
}

/// Params as a run's identity holds them: in place of a file's path its name and SHA-256, of a folder's its
/// name, wherever they lie and however the path is spelled. A path where nothing is stays as it is.
nlohmann::json portable(nlohmann::json params, const std::vector<FieldInfo>& schema) {
  for (const FieldInfo& field : schema) {
    if (field.type != FieldType<Path>::name) continue;
    const fs::path path = params.at(field.name).get<std::string>();
    std::error_code none;
    if (fs::is_directory(path, none))
      params[field.name] = fs::canonical(path).filename().string();
    else if (fs::is_regular_file(path, none))
      params[field.name] = str(path.filename().string(), " sha256:", sha256_file(path.string()));
  }
  return params;
}

/// Their runs have the same ids.
bool same(const WorkloadSpec& a, const WorkloadSpec& b) {
  return a.task == b.task && a.params_identity == b.params_identity && a.tokens == b.tokens &&
         a.count == b.count && a.seed == b.seed && a.profile == b.profile &&
         a.prompt_template == b.prompt_template;
}

class ExperimentReader {
 public:
  ExperimentReader(Experiment& e, Diagnostics& bad, bool quick)
      : e_(e), bad_(bad), base_(fs::path(e.file).parent_path().string()), quick_(quick) {}

  void read(const Located& root) {
    if (root.kind != Located::map)
      return complain(root, "an experiment is a map with name, model, workloads and methods");
    FieldReader r(root, "the experiment", e_.file, base_, bad_);
    int schema = 0;
    Located workloads, methods_, measure, quick;
    r("schema", schema, in(1, 1), "");
    r("name", e_.name, any(), "");
    r("description", e_.description, any(), "");
    r("model", e_.model, any(), "");
    r("backend", e_.backend, any(), "");
    r("dtype", e_.dtype, one_of({"auto", "float32", "bfloat16", "float16"}), "");
    r("threads", e_.threads, in(0, 4096), "");
    r("tensor_parallel", e_.tensor_parallel, in(1, 64), "");
    r("measure", measure, any(), "");
    r("quick", quick, any(), "");
    r("workloads", workloads, any(), "");
    r("methods", methods_, any(), "");
    r.finish();
    if (!root.find("schema")) complain(root, "'schema: 1' is missing (the version of this file format)");
    if (const Located* at = root.find("name"); !at || e_.name.empty())
      complain(at ? *at : root, "'name' is missing: results go to results/<name>/");
    else if (e_.name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
                 std::string::npos ||
             e_.name[0] == '.')
      complain(*at, str("'name' = '", e_.name, "' becomes a folder: use letters, digits, '-', '_' and '.'"));
    if (const Located* at = root.find("backend"); at && e_.backend != "auto" && !backends().find(e_.backend))
      complain(*at, no_such_backend(e_.backend));
    if (const Located* at = root.find("model")) {
      e_.model_place = {at->line, at->column};
      check_model(*at);
    }
    FieldReader m(measure, "measure", e_.file, base_, bad_);
    e_.measure.fields(m);
    m.finish();
    if (workloads.kind != Located::list || workloads.items.empty())
      complain(workloads.line ? workloads : root, "'workloads' must be a list with at least one task");
    for (const Located& w : workloads.items) workload(w);
    if (bad_.empty()) refuse_twins();  // a mistaken field has its default, which may be another's value
    shorten(root, quick);
    if (methods_.kind != Located::list || methods_.items.empty())
      complain(methods_.line ? methods_ : root, "'methods' must be a list with at least one method");
    for (const Located& m_ : methods_.items) method(m_);
    add_dense();
    drop_twins();
  }

 private:
  void complain(const Located& at, std::string text) {
    bad_.push_back({e_.file, at.line, at.column, std::move(text)});
  }

  void check_model(const Located& at) {
    const bool fetchable = e_.model == "smollm2-135m-instruct" || e_.model == "smollm2-135m-instruct-128k";
    try {
      resolve_model(e_.model, base_);
    } catch (const InputError& error) {
      if (!fetchable) complain(at, error.what());
    }
  }

  /// quick: {tokens: 2048, samples: 1}
  void shorten(const Located& root, const Located& quick) {
    if (quick.kind == Located::null) {
      if (quick_)
        complain(
            root,
            "there is no 'quick' block (quick: {tokens: 4096, samples: 1}), so --quick means nothing here");
      return;
    }
    FieldReader r(quick, "quick", e_.file, base_, bad_);
    int64_t tokens = 4096, samples = 1;
    r("tokens", tokens, in(16, 16777216), "");
    r("samples", samples, in(1, 1000000), "");
    r.finish();
    if (!quick_) return;
    e_.name += "-quick";
    std::vector<WorkloadSpec> short_ones;
    for (WorkloadSpec w : e_.workloads) {
      w.tokens = tokens;
      w.count = samples;
      const Located* length = quick.find("tokens");
      w.line = (length ? length : &quick)->line, w.column = (length ? length : &quick)->column;
      if (std::none_of(short_ones.begin(), short_ones.end(), [&](const auto& s) { return same(s, w); }))
        short_ones.push_back(w);
    }
    e_.workloads = std::move(short_ones);
  }

  void workload(const Located& node) {
    WorkloadSpec w;
    FieldReader r(node, "a workload", e_.file, base_, bad_);
    std::string task;
    std::vector<int64_t> tokens = {4096};
    Located params;
    r("task", task, any(), "");
    r("tokens", tokens, in(16, 16777216), "");
    r("samples", w.count, in(1, 1000000), "");
    r("seed", w.seed, at_least(0), "");
    r("profile", w.profile,
      one_of({"official", "official-88b3daa", "minference", "shareprefill", "flexprefill"}), "");
    r("template", w.prompt_template, one_of({"none", "chat"}), "");
    r("params", params, any(), "");
    r.finish();
    if (node.kind != Located::map) return;
    const Located* at = node.find("task");
    if (!at) return complain(node, "a workload needs 'task'");
    w.task = tasks().find(task);
    if (!w.task) return complain(*at, tasks().unknown(task));
    w.params = w.task->read({&params}, e_.file, base_, bad_);
    w.params_identity = portable(w.params.canonical, w.task->schema);
    if (!w.params.invalid.empty()) complain(params, str(task, ": ", w.params.invalid));
    w.source = source_place(w.task->schema, {&params}, *at);
    if (tokens.empty()) complain(node, "'tokens' is an empty list");
    const Located* lengths = node.find("tokens");
    for (size_t i = 0; i < tokens.size(); ++i) {
      w.tokens = tokens[i];
      const Located& place = !lengths ? node : i < lengths->items.size() ? lengths->items[i] : *lengths;
      w.line = place.line, w.column = place.column;
      e_.workloads.push_back(w);
    }
  }

  void refuse_twins() {
    for (auto w = e_.workloads.begin(); w != e_.workloads.end(); ++w) {
      const auto first = std::find_if(e_.workloads.begin(), w, [&](const auto& s) { return same(s, *w); });
      if (first != w)
        bad_.push_back({e_.file, w->line, w->column,
                        str("workload ", w->label(), " is already on line ", first->line,
                            " with the same parameters, samples and seed: remove one")});
    }
  }

  void method(const Located& node) {
    FieldReader r(node, "a method", e_.file, base_, bad_);
    std::string name, label;
    Located params = empty_map(), grid, zip, ablate;
    r("name", name, any(), "");
    r("label", label, any(), "");
    r("params", params, any(), "");
    r("grid", grid, any(), "");
    r("zip", zip, any(), "");
    r("ablate", ablate, any(), "");
    r.finish();
    if (node.kind != Located::map) return;
    const Located* at = node.find("name");
    if (!at) return complain(node, "a method needs 'name'");
    const MethodInfo* info = methods().find(name);
    if (!info) return complain(*at, methods().unknown(name));
    if (params.kind == Located::null) params = empty_map();
    std::vector<Point> points{{empty_map()}};
    expand_grid(grid, points);
    expand_zip(zip, points);
    expand_ablate(ablate, points);
    for (const Point& point : points) {
      MethodPoint p{info, info->read({&params, &point.changes}, e_.file, base_, bad_)};
      p.source = source_place(info->schema, {&params, &point.changes}, *at);
      p.label = label.empty() ? name : label;
      if (label.empty())
        for (const auto& [k, v] : params.entries)
          if (!point.changes.find(k.text)) p.label += str(" ", k.text, "=", scalar_text(v));
      for (const auto& [k, v] : point.changes.entries) p.label += str(" ", k.text, "=", scalar_text(v));
      if (!p.params.invalid.empty())
        e_.pruned.push_back({p.label, p.params.invalid});
      else
        e_.points.push_back(std::move(p));
    }
  }

  /// Every sweep is a map from a parameter to the list of its values.
  bool sweep_lists(const Located& sweep, const char* kind) {
    if (sweep.kind == Located::null) return false;
    if (sweep.kind != Located::map)
      return complain(sweep, str("'", kind, "' must be a map: parameter: [values]")), false;
    for (const auto& [key, values] : sweep.entries)
      if (values.kind != Located::list || values.items.empty())
        return complain(values.line ? values : key,
                        str("'", kind, "': '", key.text, "' needs a list of values, as in [0.9, 0.95]")),
               false;
    return true;
  }

  void expand_grid(const Located& grid, std::vector<Point>& points) {
    if (!sweep_lists(grid, "grid")) return;
    for (const auto& [key, values] : grid.entries) {
      std::vector<Point> next;
      for (const Point& p : points)
        for (const Located& v : values.items) next.push_back({with(p.changes, key, v)});
      points = std::move(next);
    }
    if (points.size() > 100000)
      complain(grid, str("the grid has ", points.size(), " points; 100000 is the limit")), points.resize(1);
  }

  void expand_zip(const Located& zip, std::vector<Point>& points) {
    if (!sweep_lists(zip, "zip") || zip.entries.empty()) return;
    const size_t n = zip.entries[0].second.items.size();
    for (const auto& [key, values] : zip.entries)
      if (values.items.size() != n)
        return complain(values, str("'zip': '", key.text, "' has ", values.items.size(), " values, '",
                                    zip.entries[0].first.text, "' has ", n, "; they go together one by one"));
    std::vector<Point> next;
    for (const Point& p : points)
      for (size_t i = 0; i < n; ++i) {
        Located changes = p.changes;
        for (const auto& [key, values] : zip.entries) changes = with(changes, key, values.items[i]);
        next.push_back({changes});
      }
    points = std::move(next);
  }

  /// The base, and then one change at a time off it.
  void expand_ablate(const Located& ablate, std::vector<Point>& points) {
    if (!sweep_lists(ablate, "ablate")) return;
    std::vector<Point> next;
    for (const Point& p : points) {
      next.push_back(p);
      for (const auto& [key, values] : ablate.entries)
        for (const Located& v : values.items) next.push_back({with(p.changes, key, v)});
    }
    points = std::move(next);
  }

  void add_dense() {
    const MethodInfo* dense = methods().find("dense");
    if (!dense || std::any_of(e_.points.begin(), e_.points.end(), [&](auto& p) { return p.method == dense; }))
      return;
    e_.points.insert(e_.points.begin(),
                     MethodPoint{dense, dense->read({}, e_.file, base_, bad_), "dense", true});
  }

  void drop_twins() {
    std::map<std::string, std::string> seen;
    std::vector<MethodPoint> kept;
    for (auto& p : e_.points) {
      p.params_identity = portable(p.params.canonical, p.method->schema);
      const auto [first, fresh] = seen.emplace(p.method->name + p.params_identity.dump(),
                                               str("'", p.label, "' of line ", p.source.line));
      if (fresh)
        kept.push_back(std::move(p));
      else
        e_.pruned.push_back(
            {p.label, str("line ", p.source.line, " has the same parameters as ", first->second)});
    }
    e_.points = std::move(kept);
  }

  Experiment& e_;
  Diagnostics& bad_;
  std::string base_;
  bool quick_;
};

}  // namespace

Experiment read_experiment(const std::string& file, Diagnostics& bad, bool quick) {
  Experiment e;
  e.file = file;
  e.text = read_file(file);
  const size_t before = bad.size();
  const Located root = parse_yaml(e.text, file, bad);
  if (root.kind == Located::null && bad.size() > before) return e;  // no tree to go on with
  ExperimentReader(e, bad, quick).read(root);
  // Sweeps read the base once per point: say each thing once, in the order of the file.
  std::stable_sort(bad.begin(), bad.end(),
                   [](auto& a, auto& b) { return std::tie(a.line, a.column) < std::tie(b.line, b.column); });
  bad.erase(std::unique(bad.begin(), bad.end(), [](auto& a, auto& b) { return a.print() == b.print(); }),
            bad.end());
  return e;
}

std::string no_such_backend(const std::string& name) {
  if (name == "cuda") return "backend 'cuda' is not in this build; build with the cuda preset";
  return backends().unknown(name);
}

std::string cache_home() {
  if (const char* home = std::getenv("PREFILLBENCH_HOME"); home && *home) return home;
  const char* home = std::getenv("HOME");
  return (fs::path(home && *home ? home : ".") / ".cache" / "prefillbench").string();
}

std::string resolve_model(const std::string& model, const std::string& base_folder) {
  const fs::path places[] = {fs::path(base_folder) / model, fs::path(model), fs::path(cache_home()) / model};
  for (const fs::path& p : places)
    if (fs::exists(p / "config.json")) return fs::canonical(p).string();
  std::string how = "give the path of a Hugging Face folder (config.json, *.safetensors, tokenizer)";
  if (model.starts_with("smollm2-135m-instruct")) how = "run scripts/fetch_model.py " + model;
  for (const fs::path& p : places)
    if (!model.empty() && fs::is_directory(p))
      throw InputError(
          str("model '", model, "': config.json is missing in the folder ", p.string(), ": ", how));
  throw InputError(str("model '", model, "' was not found here or in ", cache_home(), ": ", how));
}

}  // namespace prefill
