#include "tasks/generated/generated_task.h"

#include "core/base/error.h"
#include "core/base/text.h"
#include "tasks/generated/exact_length.h"

namespace prefill {

GeneratedTask::GeneratedTask(std::string name, const std::string& scored_as, const TaskRequest& request,
                             int max_new_tokens, int override_limit, int64_t fixed_units)
    : name_(std::move(name)),
      request_(request),
      scorer_(scored_as, request.profile),
      max_new_tokens_(override_limit > 0 ? override_limit : max_new_tokens),
      fixed_units_(fixed_units) {
  if (request_.count < 1) throw InputError(str(name_, ": count must be at least 1, not ", request_.count));
  if (request_.tokens < 1) throw InputError(str(name_, ": tokens must be at least 1, not ", request_.tokens));
}

Sample GeneratedTask::sample(int64_t index) const {
  if (index < 0 || index >= request_.count)
    throw InputError(str(name_, ": there is no sample ", index, "; count is ", request_.count));
  Fitted fitted{fixed_units_, {}};
  if (fixed_units_ <= 0) {
    if (!request_.tokenizer) throw InputError(str(name_, ": an exact token length needs a tokenizer"));
    fitted = fit_exactly(
        [&](int64_t units, const std::string& padding) { return build(index, units, padding).prompt; },
        min_units(), request_.tokens, *request_.tokenizer, name_);
  }
  Draft draft = build(index, fitted.units, fitted.padding.text());
  Sample out;
  out.id = sample_id(index);
  out.prompt = std::move(draft.prompt);
  out.record = std::move(draft.record);
  out.record["id"] = index;
  if (!out.record.contains("options")) out.record["options"] = nlohmann::json::array();
  out.answer = out.record.at("answer");
  if (fixed_units_ <= 0)
    out.tokens = request_.tokens;
  else if (request_.tokenizer)
    out.tokens = int64_t(request_.tokenizer->encode(out.prompt).size());
  return out;
}

Score GeneratedTask::score(const Sample& sample, const std::string& prediction) const {
  return scorer_.score(prediction, sample.answer);
}

double GeneratedTask::depth(int64_t index) const {
  Rng jitter(request_.seed, name_ + "/depth", uint64_t(index));
  return (double(index) + jitter.uniform()) / double(request_.count);
}

std::string random_uuid(Rng& rng) {
  const uint64_t high = (rng.next() & ~0xF000ull) | 0x4000ull;
  const uint64_t low = (rng.next() & ~(3ull << 62)) | 2ull << 62;
  static const char hex[] = "0123456789abcdef";
  std::string out;
  for (int i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) out += '-';
    out += hex[((i < 16 ? high : low) >> (60 - 4 * (i % 16))) & 15];
  }
  return out;
}

}  // namespace prefill
