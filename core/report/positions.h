// Teacher-forced tasks by position in the prompt: perplexity, agreement with dense attention, KL divergence.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/report/result_set.h"

namespace prefill {

/// Means over the positions [from, to) of a prompt, over all samples. A position is the index of the last
/// token read, from 0. NLL and KL in nats. Negative: not measured by this task.
struct PositionBucket {
  int64_t from = 0, to = 0;
  int64_t n = 0;  ///< positions, all samples together
  double nll = 0;
  double top1 = -1;  ///< share of positions whose best token is dense's
  double kl = -1;    ///< KL(dense || method)
  double dense_nll = -1;
};

/// One method setting on one text at one length.
struct PositionRow {
  std::string model, dtype, task, text, method, label;  ///< text: name of the file
  int64_t tokens = 0;
  int samples = 0;
  bool baseline = false;
  PositionBucket all;
  std::vector<PositionBucket> buckets;
};

/// Of all ok samples that have positions, dense first, else in order of label.
std::vector<PositionRow> position_rows(const std::vector<RunData>& runs);

/// Tables of at most `width` columns; "" for no rows.
std::string positions_text(const std::vector<PositionRow>& rows, int width);
/// One row per (row, bucket), `from` and `to` empty for the mean over all positions; RFC 4180.
std::string positions_csv(const std::vector<PositionRow>& rows);
nlohmann::json positions_json(const std::vector<PositionRow>& rows);

}  // namespace prefill
