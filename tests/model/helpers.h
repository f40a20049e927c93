// Fixtures and the plain attention that the tests of this folder run models with.
#pragma once
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/engine.h"
#include "core/model/model.h"
#include "core/model/safetensors.h"

/// The message holds `part` and is one line.
#define EXPECT_SAYS(message, part)                                                   \
  do {                                                                               \
    const std::string said = (message);                                              \
    EXPECT_NE(said.find(part), std::string::npos) << "got: " << said;                \
    EXPECT_EQ(said.find('\n'), std::string::npos) << "more than one line: " << said; \
  } while (false)

namespace prefill {

inline std::string fixture(const std::string& name) {
  return std::string(PREFILL_SOURCE_DIR) + "/tests/model/fixtures/" + name;
}

/// Dense causal attention written out: softmax of the whole score matrix in double precision.
class PlainAttention final : public AttentionHook {
 public:
  at::Tensor prefill(int, const Qkv& x) override {
    const int64_t group = x.q_heads() / x.kv_heads(), n = x.seq_len();
    const at::Tensor k = x.k.to(at::kDouble).repeat_interleave(group, 0),
                     v = x.v.to(at::kDouble).repeat_interleave(group, 0);
    at::Tensor scores = at::matmul(x.q.to(at::kDouble), k.transpose(1, 2)) * x.scale;
    scores.masked_fill_(at::ones({n, n}, at::kBool).triu(1), -INFINITY);
    return at::matmul(scores.softmax(-1), v).to(x.q.scalar_type());
  }
};

/// A folder of its own that disappears with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "prefill-test-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void write_text(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// what() of the InputError that f throws, "" when it throws none.
template <class F>
std::string input_error(F f) {
  try {
    f();
  } catch (const InputError& e) {
    return e.what();
  }
  return "";
}

inline std::vector<int32_t> to_ids(const at::Tensor& t) {
  const at::Tensor flat = t.to(at::kInt).contiguous();
  return {flat.data_ptr<int32_t>(), flat.data_ptr<int32_t>() + flat.numel()};
}

}  // namespace prefill
