#include "core/report/positions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <tuple>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/report/csv.h"
#include "core/report/text_table.h"

namespace prefill {
namespace {

using nlohmann::json;

/// Adds a sample's means, weighted by the number of positions they are means of.
void accumulate(PositionBucket& sum, const json& one) {
  const auto n = one.at("n").get<int64_t>();
  const auto add = [&](double& total, const char* key) {
    if (one.contains(key)) total = std::max(total, 0.0) + one[key].get<double>() * double(n);
  };
  add(sum.nll, "nll");
  add(sum.top1, "top1");
  add(sum.kl, "kl");
  add(sum.dense_nll, "dense_nll");
  sum.n += n;
}

void finish(PositionBucket& b) {
  b.nll /= double(b.n);
  for (double* x : {&b.top1, &b.kl, &b.dense_nll})
    if (*x >= 0) *x /= double(b.n);
}

/// 512 -> "512+", 4096 -> "4K+".
std::string from_text(int64_t from) {
  return from % 1024 == 0 && from > 0 ? fmt::format("{}K+", from / 1024) : fmt::format("{}+", from);
}

std::string kl_text(double kl) {
  return kl == 0 ? "0" : kl < 0.001 ? fmt::format("{:.0e}", kl) : fmt::format("{:.3f}", kl);
}

using Show = std::function<std::string(const PositionBucket&)>;

std::string one_table(const std::vector<const PositionRow*>& rows, const Show& show, int width) {
  std::vector<TextTable::Column> layout{{"method", 0, false}, {"all", 7, true}};
  for (const PositionBucket& b : rows[0]->buckets) layout.push_back({from_text(b.from), 7, true});
  TextTable table(layout, width);
  for (const PositionRow* r : rows) {
    std::vector<std::string> cells{r->label, show(r->all)};
    for (const PositionBucket& b : r->buckets) cells.push_back(show(b));
    cells.resize(layout.size());
    table.add(std::move(cells));
  }
  return table.text();
}

auto place_of(const PositionRow& r) { return std::tie(r.model, r.dtype, r.tokens, r.task, r.text); }

}  // namespace

std::vector<PositionRow> position_rows(const std::vector<RunData>& runs) {
  std::map<std::string, PositionRow> rows;
  std::set<std::string> seen;  // a sample that two runs of one point hold counts once
  for (const RunData& run : runs)
    for (const auto& [id, sample] : run.samples) {
      if (!sample.ok() || !sample.details.is_object() || !sample.details.contains("positions")) continue;
      const std::string key = run.workload_key() + run.point_key();
      if (!seen.insert(key + id).second) continue;
      PositionRow& row = rows[key];
      try {
        if (row.samples++ == 0) {
          row.model = run.model, row.dtype = run.dtype, row.task = run.task, row.label = run.label,
          row.tokens = run.tokens;
          row.method = run.method;
          row.baseline = run.method == "dense";
          if (run.task_data.is_object()) row.text = run.task_data.value("file", "");
          row.all.from = 0;
        }
        accumulate(row.all, sample.details);
        row.all.to = std::max(row.all.to, sample.details["positions"].back().at("to").get<int64_t>());
        const json& positions = sample.details["positions"];
        row.buckets.resize(std::max(row.buckets.size(), positions.size()));
        for (size_t i = 0; i < positions.size(); ++i) {
          PositionBucket& b = row.buckets[i];
          b.from = positions[i].at("from").get<int64_t>();
          b.to = std::max(b.to, positions[i].at("to").get<int64_t>());
          accumulate(b, positions[i]);
        }
      } catch (const json::exception& e) {
        throw InputError(
            str(run.folder, ": sample ", id, ": \"details\" is not as `run` writes it: ", e.what()));
      }
    }
  std::vector<PositionRow> out;
  for (auto& [key, row] : rows) {
    finish(row.all);
    for (PositionBucket& b : row.buckets) finish(b);
    out.push_back(std::move(row));
  }
  std::stable_sort(out.begin(), out.end(), [](const PositionRow& a, const PositionRow& b) {
    return std::tuple(place_of(a), !a.baseline, a.label) < std::tuple(place_of(b), !b.baseline, b.label);
  });
  return out;
}

std::string positions_text(const std::vector<PositionRow>& rows, int width) {
  std::string out;
  for (size_t i = 0; i < rows.size();) {
    std::vector<const PositionRow*> group;
    for (; i < rows.size() && (group.empty() || place_of(rows[i]) == place_of(*group[0])); ++i)
      group.push_back(&rows[i]);
    const PositionRow& first = *group[0];
    const auto title = [&](const char* what) {
      out += wrap(fmt::format("{}, {} tokens · {} · {} of {} · {}, by tokens read", first.model, first.tokens,
                              what, first.task, first.text.empty() ? "its text" : first.text, first.dtype),
                  width, 2);
    };
    if (first.all.top1 >= 0) {
      title("same best token as dense, %");
      out += one_table(
                 group, [](const PositionBucket& b) { return fmt::format("{:.2f}", 100 * b.top1); }, width) +
             "\n";
      title("KL(dense || method), nats");
      out += one_table(
                 group, [](const PositionBucket& b) { return kl_text(b.kl); }, width) +
             "\n";
    } else {
      title("perplexity");
      out +=
          one_table(
              group, [](const PositionBucket& b) { return fmt::format("{:.3f}", std::exp(b.nll)); }, width) +
          "\n";
    }
  }
  return out;
}

std::string positions_csv(const std::vector<PositionRow>& rows) {
  std::string out = csv_row({"model", "dtype", "tokens", "task", "text", "label", "samples", "from", "to",
                             "n", "nll", "perplexity", "top1", "kl", "dense_nll"});
  for (const PositionRow& r : rows) {
    const auto add = [&](const PositionBucket& b, bool all) {
      const auto measured = [](double x) { return x < 0 ? "" : number_text(x); };
      out += csv_row({r.model, r.dtype, str(r.tokens), r.task, r.text, r.label, str(r.samples),
                      all ? "" : str(b.from), all ? "" : str(b.to), str(b.n), number_text(b.nll),
                      number_text(std::exp(b.nll)), measured(b.top1), measured(b.kl), measured(b.dense_nll)});
    };
    add(r.all, true);
    for (const PositionBucket& b : r.buckets) add(b, false);
  }
  return out;
}

json positions_json(const std::vector<PositionRow>& rows) {
  const auto bucket = [](const PositionBucket& b) {
    const auto measured = [](double x) { return x < 0 ? json(nullptr) : json(x); };
    return json{{"from", b.from},
                {"to", b.to},
                {"n", b.n},
                {"nll", b.nll},
                {"top1", measured(b.top1)},
                {"kl", measured(b.kl)},
                {"dense_nll", measured(b.dense_nll)}};
  };
  json out = json::array();
  for (const PositionRow& r : rows) {
    json buckets = json::array();
    for (const PositionBucket& b : r.buckets) buckets.push_back(bucket(b));
    out.push_back({{"model", r.model},
                   {"dtype", r.dtype},
                   {"tokens", r.tokens},
                   {"task", r.task},
                   {"text", r.text},
                   {"method", r.method},
                   {"label", r.label},
                   {"baseline", r.baseline},
                   {"samples", r.samples},
                   {"all", bucket(r.all)},
                   {"buckets", buckets}});
  }
  return out;
}

}  // namespace prefill
