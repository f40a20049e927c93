#include "core/run/runner.h"

#include <c10/util/Exception.h>
#include <fnmatch.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <new>
#include <numeric>
#include <random>

#include "core/base/build_info.h"
#include "core/results/machine.h"
#include "core/results/store.h"
#include "core/run/progress.h"
#include "core/run/prompt_report.h"
#include "core/run/session.h"

namespace prefill {
using nlohmann::json;
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What one method point gave on one sample, over the rounds.
struct Outcome {
  std::string status = "ok", why;
  std::vector<double> ttft_s, attention_s;
  PromptReport report;  ///< of the first round
  double decode_s = 0;
  Answered result;
};

class Runner {
 public:
  Runner(Experiment& e, const RunOptions& o) : e_(e), o_(o), s_(open_session(e)) {
    for (const auto& [label, reason] : e.pruned) std::cerr << "skipped: " << label << ": " << reason << "\n";
    for (size_t p = 0; p < e_.points.size(); ++p) {
      if (e_.points[p].method->name == "dense" && dense_ == e_.points.size()) dense_ = p;
      if (o_.only.empty() || p == dense_ || fnmatch(o_.only.c_str(), e_.points[p].label.c_str(), 0) == 0)
        chosen_.push_back(p);
    }
    if (!o_.only.empty() && chosen_.size() < 2 &&
        fnmatch(o_.only.c_str(), e_.points[dense_].label.c_str(), 0) != 0)
      throw InputError(
          str("--only '", o_.only, "' matches no method label; see prefillbench plan ", e_.file));
    verify_backend(*s_.backend, s_.model->own_shape(), s_.model->dtype());
  }

  int run() {
    ResultStore store(o_.results, e_.name, o_.shards > 1 ? str(o_.shard + 1, "-of-", o_.shards) : "");
    open_runs(store);
    const double budget = o_.budget_s >= 0 ? o_.budget_s : e_.measure.budget_s;
    Progress progress(pending_work(), o_.quiet);
    double longest_unit = 0;
    bool out_of_time = false;
    // Sample by sample over all workloads: stopping early leaves every method and task with the same samples.
    int64_t unit = 0;
    for (int64_t i = 0; i < most_samples() && !out_of_time; ++i)
      for (size_t w = 0; w < s_.workloads.size(); ++w) {
        if (i >= s_.workloads[w]->size() || unit++ % o_.shards != o_.shard) continue;
        const std::vector<size_t> jobs = pending(w, i);
        if (jobs.empty()) continue;
        if (budget > 0 && progress.elapsed_s() + longest_unit * 0.5 > budget && i > 0) {
          out_of_time = true;
          progress.note(str("the time budget of ", duration_text(budget), " is spent after ", i,
                            i == 1 ? " sample" : " samples", " per workload; run again to go on from here"));
          break;
        }
        const double t0 = now_s();
        measure_sample(w, i, jobs, progress);
        longest_unit = std::max(longest_unit, now_s() - t0);
      }
    bool complete = true;
    for (size_t w = 0; w < s_.workloads.size(); ++w)
      for (size_t p : chosen_) {
        std::vector<std::string> ids;
        for (int64_t i = 0; i < s_.workloads[w]->size(); ++i) ids.push_back(s_.workloads[w]->sample_id(i));
        if (!store.complete(ids_[w][p])) complete &= store.finish(ids_[w][p], ids);
      }
    const bool measured = say_unsupported(store);
    if (failures_ > 0)
      std::cerr << failures_
                << (failures_ == 1 ? " sample failed; the next run tries it again\n"
                                   : " samples failed; the next run tries them again\n");
    else if (!complete && !out_of_time && o_.shards == 1)
      std::cerr << "some samples are missing\n";
    return failures_ > 0 || (!measured && o_.shards == 1) ? exit_some_failed : exit_ok;
  }

 private:
  int64_t most_samples() const {
    int64_t most = 0;
    for (const auto& w : s_.workloads) most = std::max(most, w->size());
    return most;
  }

  /// A line for each point with samples that could not be measured; --quiet keeps only those without any that
  /// could. -> false: samples are on record, and none of them was measured.
  bool say_unsupported(const ResultStore& store) const {
    bool any = false, all = true;
    for (size_t w = 0; w < s_.workloads.size(); ++w)
      for (size_t p : chosen_) {
        std::map<std::string, json> last;  // a sample tried again has several records
        for (json& record : read_samples(store.folder(ids_[w][p]))) {
          const std::string sample = record.at("sample").get<std::string>();
          last[sample] = std::move(record);
        }
        size_t unsupported = 0;
        std::string why;
        for (const auto& [sample, record] : last)
          if (record.value("status", "") == "unsupported" && unsupported++ == 0)
            why = record.value("why", "");
        any |= !last.empty();
        if (unsupported < last.size()) all = false;
        if (unsupported == 0 || (o_.quiet && unsupported < last.size())) continue;
        std::cerr << "unsupported: " << e_.points[p].label << " on " << e_.workloads[w].label() << ": "
                  << (unsupported == last.size() ? str("none of ", last.size())
                                                 : str("not ", unsupported, " of ", last.size()))
                  << (last.size() == 1 ? " sample" : " samples") << " could be measured: " << why << "\n";
      }
    return !any || !all;
  }

  void open_runs(ResultStore& store) {
    const json provenance = provenance_of();
    for (size_t w = 0; w < s_.workloads.size(); ++w) {
      ids_.emplace_back(e_.points.size());
      logs_.emplace_back(e_.points.size(), nullptr);
      for (size_t p : chosen_) {
        json spec = identity_of(e_, s_, e_.workloads[w], e_.points[p], s_.workloads[w]->max_new_tokens());
        const std::string id = run_id(spec);
        spec["id"] = id;
        spec["experiment"] = e_.name;
        spec["method"]["label"] = e_.points[p].label;
        ids_[w][p] = id;
        logs_[w][p] = &store.open(id, spec, provenance);
      }
    }
  }

  json provenance_of() const {
    const MachineFacts m = machine_facts();
    const BuildInfo& b = build_info();
    return {{"schema", 1},
            {"hardware", str(e_.tensor_parallel > 1 ? str(e_.tensor_parallel, " ranks on ") : "",
                             s_.backend->hardware(), ", ", s_.threads, " threads")},
            {"cpu", m.cpu},
            {"isa", m.isa},
            {"cores", m.cores},
            {"memory_bytes", m.memory_bytes},
            {"os", m.host_os},
            {"kernel", m.kernel},
            {"git_sha", b.git_sha},
            {"dirty", b.dirty},
            {"compiler", b.compiler},
            {"build_type", b.build_type},
            {"libtorch", b.libtorch},
            {"version", b.version},
            {"backend", s_.backend->name()},
            {"dtype", s_.model->dtype()},
            {"argv", o_.argv},
            {"experiment_file", e_.file},
            {"yaml", e_.text},
            {"time", utc_now()}};
  }

  std::vector<size_t> pending(size_t w, int64_t i) const {
    std::vector<size_t> jobs;
    for (size_t p : chosen_)
      if (!logs_[w][p]->settled().count(s_.workloads[w]->sample_id(i))) jobs.push_back(p);
    if (jobs.size() == 1 && jobs[0] == dense_) return jobs;
    // Dense runs in every round with the others: it is what they are paired with.
    if (!jobs.empty() && std::find(jobs.begin(), jobs.end(), dense_) == jobs.end())
      jobs.insert(jobs.begin(), dense_);
    return jobs;
  }

  /// In units of one token through the linear layers; attention grows with the square.
  double work(size_t w) const {
    const double n = double(e_.workloads[w].tokens);
    return n + n * n / 8192;
  }
  double pending_work() const {
    double total = 0;
    int64_t unit = 0;
    for (int64_t i = 0; i < most_samples(); ++i)
      for (size_t w = 0; w < s_.workloads.size(); ++w)
        if (i < s_.workloads[w]->size() && unit++ % o_.shards == o_.shard)
          total += work(w) * double(pending(w, i).size()) * e_.measure.repeats;
    return total;
  }

  void measure_sample(size_t w, int64_t i, const std::vector<size_t>& jobs, Progress& progress) {
    Workload& workload = *s_.workloads[w];
    std::vector<Outcome> outcomes(jobs.size());
    const std::string sample = workload.sample_id(i);
    auto all = [&](const std::string& status, const std::string& why) {
      for (auto& o : outcomes) o.status = status, o.why = why;
    };
    int64_t n = 0;
    try {
      n = workload.prepare(i);
      warm_up(w, workload, n);
      for (int round = 0; round < e_.measure.repeats; ++round) {
        std::vector<size_t> order(jobs.size());
        std::iota(order.begin(), order.end(), size_t(0));
        // Shuffled, the same way for the same seed, sample and round.
        std::mt19937_64 random(uint64_t(e_.measure.seed) * 1000003u + uint64_t(i) * 7919u + w * 104729u +
                               uint64_t(round));
        for (size_t k = order.size(); k > 1; --k) std::swap(order[k - 1], order[random() % k]);
        for (size_t k : order) {
          progress.advance(0, str(e_.workloads[w].label(), " ", sample, " ", e_.points[jobs[k]].label));
          measure_once(workload, jobs[k], n, round == 0, outcomes[k]);
          progress.advance(work(w), "");
        }
      }
    } catch (const Unsupported& e) {
      all("unsupported", e.what());
    } catch (const InputError& e) {
      all("failed", e.what());
    }
    append(w, sample, n, jobs, outcomes, progress);
  }

  void warm_up(size_t w, Workload& workload, int64_t n) {
    if (!warm_.insert(e_.workloads[w].tokens).second) return;
    const int count = e_.measure.warmups >= 0 ? e_.measure.warmups : s_.backend->device().is_cpu() ? 0 : 1;
    for (int k = 0; k < count; ++k)
      for (size_t p : chosen_) {
        const auto clock = s_.backend->make_clock();
        AttentionEngine engine(*s_.methods[p], *s_.backend, *clock, n);
        try {
          workload.prefill(engine);
        } catch (const Unsupported&) {  // the timed round records it
        }
      }
  }

  void measure_once(Workload& workload, size_t p, int64_t n, bool first, Outcome& out) {
    if (out.status != "ok") return;
    try {
      const auto clock = s_.backend->make_clock();
      AttentionEngine engine(*s_.methods[p], *s_.backend, *clock, n);
      engine.check_plans = e_.measure.check_plans;
      s_.backend->synchronize();
      s_.backend->reset_peak();
      const double t0 = now_s();
      workload.prefill(engine);
      const double t1 = now_s();
      PromptReport report = report_of(engine, *clock, *s_.backend, first);
      if (s_.ranks) report = merged(s_.ranks->reports(std::move(report), first));
      out.ttft_s.push_back(t1 - t0);
      out.attention_s.push_back(report.attention_s());
      if (!first) return;
      out.report = std::move(report);
      out.result = workload.finish();
      out.decode_s = now_s() - t1;
    } catch (const Unsupported& e) {
      out.status = "unsupported", out.why = e.what();
    } catch (const DeviceLost&) {
      throw;
    } catch (const std::bad_alloc&) {
      out.status = "out_of_memory", out.why = "host memory";
    } catch (const c10::OutOfMemoryError& e) {
      out.status = "out_of_memory", out.why = e.what_without_backtrace();
    } catch (const c10::Error& e) {
      out.status = "failed", out.why = e.what_without_backtrace();
    } catch (const std::exception& e) {
      out.status = "failed", out.why = e.what();
    }
  }

  void append(size_t w, const std::string& sample, int64_t n, const std::vector<size_t>& jobs,
              const std::vector<Outcome>& outcomes, Progress& progress) {
    const Outcome* dense = nullptr;
    for (size_t k = 0; k < jobs.size(); ++k)
      if (jobs[k] == dense_ && outcomes[k].status == "ok") dense = &outcomes[k];
    for (size_t k = 0; k < jobs.size(); ++k) {
      const Outcome& o = outcomes[k];
      json record{{"schema", kResultsSchema},
                  {"sample", sample},
                  {"status", o.status},
                  {"tokens", n},
                  {"time", utc_now()}};
      if (o.status != "ok") {
        record["why"] = o.why;
        if (o.status != "unsupported") {  // of those, say_unsupported has a line for each point
          ++failures_;
          progress.note(str(o.status, ": ", e_.points[jobs[k]].label, " on ", e_.workloads[w].label(), " ",
                            sample, ": ", o.why));
        }
      } else {
        json stages = json::object();
        for (int s = 0; s < kStages; ++s) stages[stage_name(Stage(s))] = o.report.stages[size_t(s)];
        record.update({{"prediction", o.result.prediction},
                       {"answer", o.result.answer},
                       {"ttft_s", o.ttft_s},
                       {"attention_s", o.attention_s},
                       {"stages_s", stages},
                       {"decode_s", o.decode_s},
                       {"density", o.report.density()},
                       {"layer_density", o.report.layer_density},
                       {"kernels", o.report.kernels},
                       {"peak_rss_bytes", peak_rss_bytes()},
                       {"facts", o.report.facts}});
        if (o.report.device_peak > 0) record["device_peak_bytes"] = o.report.device_peak;
        if (s_.ranks) record["tensor_parallel"] = s_.ranks->size();
        if (!o.result.details.is_null()) record["details"] = o.result.details;
        if (o.result.cut_from > 0) record["cut_from_tokens"] = o.result.cut_from;
        if (dense && jobs[k] != dense_)
          record["dense"] = {{"ttft_s", dense->ttft_s}, {"attention_s", dense->attention_s}};
        if (s_.model->random_weights())
          record["weights"] = "random";  // and no score: the answers mean nothing
        else
          add_scores(record, o.result.score, e_.workloads[w].profile, dense);
      }
      // A dense run that only served as this round's pair is on record already.
      if (!logs_[w][jobs[k]]->settled().count(sample)) logs_[w][jobs[k]]->append(record);
    }
  }

  static void add_scores(json& record, const Score& score, const std::string& profile, const Outcome* dense) {
    record["score"] = score.value;
    record["metric"] = score.metric;
    record["profile"] = profile;
    if (!score.error.empty()) record["score_error"] = score.error;
    if (record.contains("dense")) record["dense"]["score"] = dense->result.score.value;
  }

  const Experiment& e_;
  const RunOptions& o_;
  Session s_;
  size_t dense_ = size_t(e_.points.size());
  std::vector<size_t> chosen_;
  std::vector<std::vector<std::string>> ids_;  // [workload][point]
  std::vector<std::vector<SampleLog*>> logs_;  // [workload][point]
  std::set<int64_t> warm_;                     // lengths
  int64_t failures_ = 0;
};

}  // namespace

int run_experiment(Experiment& e, const RunOptions& o) { return Runner(e, o).run(); }

}  // namespace prefill
