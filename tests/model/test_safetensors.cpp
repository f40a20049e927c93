#include <gtest/gtest.h>

#include <cstring>

#include "tests/model/helpers.h"

namespace prefill {
namespace {

std::string with_header(const std::string& header, size_t data_bytes) {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + std::string(data_bytes, '\0');
}

/// The error of opening a file with these bytes; it must name the file.
std::string open_error(const std::string& bytes) {
  const TempFolder dir;
  const std::string path = dir / "x.safetensors";
  write_text(path, bytes);
  const std::string message = input_error([&] { SafetensorsFile::open(path); });
  if (!message.empty()) {
    EXPECT_NE(message.find("x.safetensors: "), std::string::npos) << message;
  }
  return message;
}
std::string header_error(const std::string& header, size_t data_bytes) {
  return open_error(with_header(header, data_bytes));
}

TEST(Safetensors, RoundTripKeepsTensorsAndMetadata) {
  const TempFolder dir;
  const std::string path = dir / "t.safetensors";
  const at::Tensor f = at::arange(12, at::kFloat).view({3, 4}), b = (f * 0.5).to(at::kBFloat16);
  const at::Tensor strided = f.t(), ints = at::tensor({7, -1}, at::kInt), none = at::empty({0, 5}, at::kHalf);
  write_safetensors(path, {{"f", f}, {"b", b}, {"strided", strided}, {"ints", ints}, {"none", none}},
                    {{"block_q", "64"}, {"quote", "a \"b\"\n"}});
  const auto file = SafetensorsFile::open(path);
  EXPECT_TRUE(at::equal(file.tensor("f"), f));
  EXPECT_TRUE(at::equal(file.tensor("b"), b));
  EXPECT_TRUE(at::equal(file.tensor("strided"), f.t()));
  EXPECT_TRUE(at::equal(file.tensor("ints"), ints));
  EXPECT_EQ(file.tensor("none").sizes(), at::IntArrayRef({0, 5}));
  EXPECT_EQ(file.meta("block_q"), "64");
  EXPECT_EQ(file.meta("quote"), "a \"b\"\n");
  EXPECT_SAYS(input_error([&] { file.meta("block"); }), "lacks 'block'");
  EXPECT_SAYS(input_error([&] { file.tensor("int"); }), "did you mean 'ints'");
}

TEST(Safetensors, ReadsWhatTheReferenceLibraryWrote) {
  const auto file = SafetensorsFile::open(fixture("llama2/reference.safetensors"));
  EXPECT_EQ(file.tensor("ids").scalar_type(), at::kInt);
  EXPECT_EQ(file.tensor("ids").sizes(), at::IntArrayRef({150}));
  EXPECT_EQ(file.tensor("greedy").sizes(), at::IntArrayRef({32}));
}

TEST(Safetensors, TensorsOutliveTheFileObject) {
  at::Tensor kept;
  const TempFolder dir;
  write_safetensors(dir / "t", {{"x", at::ones({1000})}});
  {
    const auto file = SafetensorsFile::open(dir / "t");
    kept = file.tensor("x");
  }
  EXPECT_EQ(kept.sum().item<float>(), 1000);
}

TEST(Safetensors, MisalignedDataIsReadAll) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  std::string bytes = with_header(header, 9);
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(bytes.data() + bytes.size() - 8, values, 8);
  const TempFolder dir;
  write_text(dir / "t", bytes);
  const at::Tensor b = SafetensorsFile::open(dir / "t").tensor("b");
  EXPECT_EQ(b[0].item<float>(), 1.5f);
  EXPECT_EQ(b[1].item<float>(), -2.0f);
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const TempFolder dir;
  write_safetensors(dir / "t", {{"x", at::ones({3})}, {"y", at::ones({2}, at::kHalf)}});
  std::ifstream in(dir / "t", std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(open_error(whole), "");
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_NE(open_error(whole.substr(0, n)), "") << n << " bytes";
  EXPECT_SAYS(open_error(whole.substr(0, whole.size() - 1)), "truncated: tensor 'y'");
  EXPECT_SAYS(open_error(whole + "z"), "bytes of data, but its tensors need");
}

TEST(Safetensors, SaysWhatIsWrongWithAHeader) {
  EXPECT_SAYS(header_error("{\"a\":", 0), "not valid JSON");
  EXPECT_SAYS(header_error("[]", 0), "not a JSON object");
  EXPECT_SAYS(header_error(R"({"a":{"dtype":"F32","shape":[2]}})", 8),
              "tensor 'a': expected an object with dtype, shape and data_offsets");
  EXPECT_SAYS(header_error(R"({"a":{"dtype":"BF17","shape":[2],"data_offsets":[0,4]}})", 4),
              "unknown dtype 'BF17'; did you mean 'BF16'?");
  EXPECT_SAYS(header_error(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8),
              "is not a list of sizes");
  EXPECT_SAYS(header_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
              "tensor 'a': data_offsets span 4 bytes, but F32 [2] needs 8");
  EXPECT_SAYS(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})", 8), "run backwards");
  EXPECT_SAYS(
      header_error(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", 4),
      "data_offsets span 4 bytes");
  EXPECT_SAYS(
      header_error(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
          6),
      "tensor 'b' starts at byte 2 inside tensor 'a', which ends at 4");
  EXPECT_SAYS(
      header_error(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
          12),
      "tensor 'b' starts at byte 8, expected 4");
  EXPECT_SAYS(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3),
              "truncated: tensor 'a' ends at byte 4 of the data, but the file holds 3");
  EXPECT_SAYS(
      header_error(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
          8),
      "names tensor 'a' twice");
  EXPECT_SAYS(header_error(R"({"__metadata__":{"k":1}})", 0), "__metadata__ 'k' is not a string");
  EXPECT_SAYS(open_error(std::string(8, '\xff')), "not a safetensors file");
  EXPECT_SAYS(input_error([] { SafetensorsFile::open("/nonexistent.safetensors"); }), "can not be read");
}

TEST(Safetensors, AFailedWriteLeavesNothing) {
  EXPECT_SAYS(input_error([] {
                write_safetensors("/nonexistent/x.safetensors", {{"x", at::ones({1})}});
              }),
              "can not be written");
  EXPECT_THROW(write_safetensors("/tmp/never", {{"x", at::ones({1})}, {"x", at::ones({1})}}),
               std::logic_error);
  EXPECT_FALSE(std::filesystem::exists("/tmp/never"));
}

}  // namespace
}  // namespace prefill
