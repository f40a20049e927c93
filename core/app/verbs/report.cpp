// report DIR...: what was measured, as a table, CSV, JSON, figures and one HTML page.
#include <filesystem>
#include <iostream>
#include <memory>

#include "core/app/verb.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "core/report/draw.h"
#include "core/report/report.h"

namespace prefill {
namespace {

namespace fs = std::filesystem;

struct ReportOptions {
  std::vector<std::string> inputs;
  std::string out, results = "results";
  bool json = false, no_figures = false;
  double margin = 0.02;
};

int run_report(const ReportOptions& o) {
  const Report report = make_report(o.inputs, o.results, o.margin);
  fs::path out = o.out;
  if (out.empty())
    out = fs::is_directory(o.inputs[0]) ? fs::path(o.inputs[0]) / "report" : fs::path("report");
  std::error_code failed;
  fs::create_directories(out, failed);
  if (failed)
    throw InputError(str(out.string(), ": can not be created: ", failed.message(), "; choose another --out"));
  const std::string csv = (out / "pareto.csv").string(), json = (out / "pareto.json").string();
  const std::string data =
      pareto_json(report).dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  write_file_atomically(csv, pareto_csv(report));
  write_file_atomically(json, data);
  if (!report.positions.empty())
    write_file_atomically((out / "positions.csv").string(), positions_csv(report.positions));
  std::cout << (o.json ? data : terminal_text(report)) << std::endl;

  std::ostream& say = o.json ? std::cerr : std::cout;  // with --json, stdout is the JSON and nothing else
  say << "wrote " << csv << " and " << json << std::endl;
  if (o.no_figures) return exit_ok;
  const std::string problem = run_draw({"report", json, out.string()});
  if (!problem.empty()) std::cerr << "note: figures are missing: " << problem << std::endl;
  return exit_ok;
}

const RegisterVerb report_verb({
    .name = "report",
    .doc = "Table, pareto.csv, pareto.json, figures and one HTML page from result folders",
    .file = __FILE__,
    .order = 50,
    .setup = [](CLI::App& app) -> std::function<int()> {
      auto o = std::make_shared<ReportOptions>();
      app.add_option("DIR", o->inputs, "results folder, experiment, run folder or run id; several are joined")
          ->required();
      app.add_option("--out", o->out, "folder to write to (default: DIR/report)");
      app.add_option("--results", o->results, "where run ids are looked up")->capture_default_str();
      app.add_option("--margin", o->margin, "score differences within ±margin are the SAME")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str();
      app.add_flag("--json", o->json, "print pareto.json instead of the table");
      app.add_flag("--no-figures", o->no_figures, "write the CSV and JSON only");
      return [o] { return run_report(*o); };
    },
});

}  // namespace
}  // namespace prefill
