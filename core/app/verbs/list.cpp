// list and describe: what there is, from the registries, for people who have not read the docs.
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/app/print.h"
#include "core/app/verb.h"
#include "core/backend.h"
#include "core/method.h"
#include "core/run/experiment.h"
#include "core/task.h"

namespace prefill {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

std::string source_file(const std::string& path) {
  // __FILE__ may be absolute: show it from the repository's root on
  for (const char* root : {"/methods/", "/tasks/", "/kernels/", "/core/"})
    if (const size_t at = path.rfind(root); at != std::string::npos) return path.substr(at + 1);
  return path;
}

struct Entry {
  std::string name, doc, file;
  int version = 1;
  std::string note;
};

std::vector<std::string> model_names() {
  std::vector<std::string> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(cache_home(), error))
    if (fs::exists(entry.path() / "config.json")) out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<Entry> entries(const std::string& kind) {
  std::vector<Entry> out;
  if (kind == "methods")
    for (const auto& [name, m] : methods().all())
      out.push_back({name, m.doc, source_file(m.file), m.version, ""});
  if (kind == "tasks")
    for (const auto& [name, t] : tasks().all())
      out.push_back({name, t.doc, source_file(t.file), t.version, t.generated ? "generated" : "from files"});
  if (kind == "backends")
    for (const auto& [name, b] : backends().all()) {
      const Support s = b.available();
      out.push_back({name, b.doc, source_file(b.file), 1, s ? "available" : "not here: " + s.why});
    }
  if (kind == "models")
    for (const auto& name : model_names())
      out.push_back({name, (fs::path(cache_home()) / name).string(), "", 1, ""});
  return out;
}

int list(const std::string& kind, bool as_json) {
  std::vector<std::string> kinds = {"methods", "tasks", "backends", "models"};
  if (!kind.empty()) {
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end())
      throw InputError(str("there is no list of '", kind, "'", did_you_mean(kind, kinds),
                           " (methods, tasks, backends, models)"));
    kinds = {kind};
  }
  json all = json::object();
  for (const auto& k : kinds) {
    const auto found = entries(k);
    if (as_json) {
      json items = json::array();
      for (const auto& e : found) {
        items.push_back({{"name", e.name}, {"doc", e.doc}, {"file", e.file}, {"version", e.version}});
        if (!e.note.empty()) items.back()["note"] = e.note;
      }
      all[k] = items;
      continue;
    }
    std::cout << k << (kinds.size() > 1 ? " (prefillbench list " + k + ")" : "") << "\n";
    std::vector<std::vector<std::string>> rows;
    for (const auto& e : found)
      rows.push_back({"  " + e.name, e.note.empty() ? e.doc : e.doc + " [" + e.note + "]"});
    if (found.empty())
      rows.push_back({"  none", k == "models" ? "scripts/fetch_model.py smollm2-135m-instruct-128k gets one"
                                              : "nothing is registered"});
    std::cout << table(rows);
  }
  if (as_json) std::cout << (kind.empty() ? all : all[kind]).dump(1) << "\n";
  return exit_ok;
}

json param_json(const FieldInfo& f) {
  json p{{"name", f.name}, {"type", f.type}, {"default", f.fallback}, {"doc", f.doc}};
  if (!f.rule.choices.empty()) p["choices"] = f.rule.choices;
  const bool number = f.type == "int" || f.type == "float" || f.type.starts_with("list of");
  if (number && f.type != "list of string") {
    auto bound = [](double v) { return std::isfinite(v) ? json(v) : json(nullptr); };
    p["range"] = {bound(f.rule.lo), bound(f.rule.hi)};
  }
  return p;
}

std::string range_text(const FieldInfo& f) {
  if (!f.rule.choices.empty()) {
    std::string all;
    for (const auto& c : f.rule.choices) all += (all.empty() ? "" : " | ") + c;
    return all;
  }
  const bool lo = std::isfinite(f.rule.lo), hi = std::isfinite(f.rule.hi);
  if (lo && hi) return str(number_text(f.rule.lo), " .. ", number_text(f.rule.hi));
  if (lo) return str(">= ", number_text(f.rule.lo));
  if (hi) return str("<= ", number_text(f.rule.hi));
  return "";
}

void print_params(const std::vector<FieldInfo>& schema) {
  if (schema.empty()) {
    std::cout << "parameters: none\n";
    return;
  }
  std::cout << "parameters\n";
  std::vector<std::vector<std::string>> rows{{"  name", "type", "default", "range", "meaning"}};
  for (const auto& f : schema)
    rows.push_back({"  " + f.name, f.type, f.fallback.dump(), range_text(f), f.doc});
  std::cout << table(rows, 120);
}

void say(const char* what, const std::string& text) {
  if (!text.empty()) std::cout << what << ": " << wrap(text, 2) << "\n";
}

int describe(const std::string& name, bool as_json) {
  if (const MethodInfo* m = methods().find(name)) {
    if (as_json) {
      json j{{"kind", "method"},      {"name", m->name},
             {"version", m->version}, {"doc", m->doc},
             {"source", m->source},   {"deviations", m->deviations},
             {"cost", m->cost},       {"file", source_file(m->file)},
             {"knob", m->knob},       {"params", json::array()}};
      for (const auto& f : m->schema) j["params"].push_back(param_json(f));
      std::cout << j.dump(1) << "\n";
      return exit_ok;
    }
    std::cout << "method " << m->name << ", version " << m->version << "\n  " << wrap(m->doc, 2) << "\n";
    say("source", m->source);
    say("differs from the source", m->deviations);
    say("cost of selection", m->cost);
    say("main knob", m->knob);
    print_params(m->schema);
    std::cout << "file: " << source_file(m->file)
              << "\n\nin an experiment:\n  methods:\n    - name: " << m->name << "\n";
    if (!m->knob.empty()) {
      std::string values;
      for (double v : m->knob_values) values += (values.empty() ? "" : ", ") + number_text(v);
      std::cout << "      grid: {" << m->knob << ": [" << values << "]}\n";
    }
    return exit_ok;
  }
  if (const TaskInfo* t = tasks().find(name)) {
    if (as_json) {
      json j{{"kind", "task"},
             {"name", t->name},
             {"version", t->version},
             {"doc", t->doc},
             {"source", t->source},
             {"generated", t->generated},
             {"file", source_file(t->file)},
             {"params", json::array()}};
      for (const auto& f : t->schema) j["params"].push_back(param_json(f));
      std::cout << j.dump(1) << "\n";
      return exit_ok;
    }
    std::cout << "task " << t->name << ", version " << t->version << "\n  " << wrap(t->doc, 2) << "\n";
    say("source", t->source);
    print_params(t->schema);
    std::cout << "file: " << source_file(t->file)
              << "\n\nin an experiment:\n  workloads:\n    - {task: " << t->name
              << ", tokens: [4096, 8192], samples: 10}\n";
    return exit_ok;
  }
  if (const BackendInfo* b = backends().find(name)) {
    const Support s = b->available();
    if (as_json)
      std::cout << json{{"kind", "backend"},      {"name", b->name},
                        {"doc", b->doc},          {"file", source_file(b->file)},
                        {"available", s.ok},      {"why", s.why},
                        {"params", json::array()}}
                       .dump(1)
                << "\n";
    else
      std::cout << "backend " << b->name << "\n  " << wrap(b->doc, 2)
                << "\nhere: " << (s ? "available" : s.why) << "\nfile: " << source_file(b->file) << "\n";
    return exit_ok;
  }
  std::vector<std::string> known = methods().names();
  for (const auto& n : tasks().names()) known.push_back(n);
  for (const auto& n : backends().names()) known.push_back(n);
  throw InputError(str("nothing is called '", name, "'", did_you_mean(name, known),
                       "; prefillbench list shows what there is"));
}

const RegisterVerb list_verb{Verb{.name = "list",
                                  .doc = "Show the methods, tasks, backends and models there are",
                                  .file = __FILE__,
                                  .order = 10,
                                  .setup = [](CLI::App& app) {
                                    auto kind = std::make_shared<std::string>();
                                    auto as_json = std::make_shared<bool>(false);
                                    app.add_option("kind", *kind,
                                                   "methods, tasks, backends or models; all when left out");
                                    app.add_flag("--json", *as_json, "print JSON");
                                    return [=] { return list(*kind, *as_json); };
                                  }}};
const RegisterVerb describe_verb{Verb{.name = "describe",
                                      .doc = "Explain a method, task or backend: parameters, source, cost",
                                      .file = __FILE__,
                                      .order = 11,
                                      .setup = [](CLI::App& app) {
                                        auto name = std::make_shared<std::string>();
                                        auto as_json = std::make_shared<bool>(false);
                                        app.add_option("name", *name, "as 'list' shows it")->required();
                                        app.add_flag("--json", *as_json, "print JSON");
                                        return [=] { return describe(*name, *as_json); };
                                      }}};

}  // namespace
}  // namespace prefill
