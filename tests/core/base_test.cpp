#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/text.h"

namespace prefill {
namespace {

TEST(Sha256, AgreesWithFips180Examples) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesDoNotMatter) {
  const std::string text(777, 'x');
  for (size_t cut : {0u, 1u, 63u, 64u, 65u, 700u}) {
    Sha256 h;
    h.update(text.substr(0, cut));
    h.update(text.substr(cut));
    EXPECT_EQ(h.hex(), sha256_hex(text)) << cut;
  }
}

TEST(Text, SuggestsTypingMistakesOnly) {
  const std::vector<std::string> known = {"flexprefill", "minference", "dense"};
  EXPECT_EQ(did_you_mean("flexprefil", known), "; did you mean 'flexprefill'?");
  EXPECT_EQ(did_you_mean("dens", known), "; did you mean 'dense'?");
  EXPECT_EQ(did_you_mean("flex", known), "; did you mean 'flexprefill'?");
  EXPECT_EQ(did_you_mean("quantum", known), "");
}

TEST(Text, NumbersReadBackAsTheSameDouble) {
  for (double v : {0.1, 1.0 / 3, 1e300, 5e-324, -0.0, 123456789.123})
    EXPECT_EQ(std::strtod(number_text(v).c_str(), nullptr), v);
  EXPECT_THROW(number_text(std::nan("")), InputError);
}

TEST(Text, AtomicWriteReplacesWholeOrNotAtAll) {
  const auto folder = std::filesystem::temp_directory_path() / str("prefillbench_atomic_", getpid());
  std::filesystem::create_directories(folder);
  const std::string file = (folder / "f").string();
  write_file_atomically(file, "one");
  write_file_atomically(file, "two");
  EXPECT_EQ(read_file(file), "two");
  EXPECT_THROW(write_file_atomically((folder / "no" / "such" / "f").string(), "x"), InputError);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1)
      << "nothing half-written may stay behind";
  std::filesystem::remove_all(folder);
  EXPECT_THROW(read_file(file), InputError);
}

}  // namespace
}  // namespace prefill
