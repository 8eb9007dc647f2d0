// Checkpoints that --resume was told to take, and cannot.
#include "io/checkpoint.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

class BadCheckpoint : public Mistakes {
 protected:
  void SetUp() override {
    const Outcome outcome = train(2);
    ASSERT_EQ(outcome.code, 0) << outcome;
    digest_ = outcome.digest();
    fs::copy_file(io::checkpoint_path(run_folder(), 9), path("copy.h5"));
  }

  // Nothing of the run is lost: it still verifies, and ends as it did.
  void TearDown() override {
    EXPECT_EQ(newest_checkpoint(), 9);
    EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
    EXPECT_EQ(train(2, {"--resume"}).digest(), digest_);
  }

  void expect_refused(const std::string& file, int code, const Words& parts, const Words& words = {}) {
    expect_message(2, training(words + Words{"--resume", file}), code, parts);
  }

  std::string digest_;
};

TEST_F(BadCheckpoint, Missing) {
  expect_refused("none.h5", kFailure, {"none.h5", "no such file", "another checkpoint"});
}

TEST_F(BadCheckpoint, AFolder) { expect_refused("runs", kFailure, {"runs", "another checkpoint"}); }

TEST_F(BadCheckpoint, AnotherKindOfFile) {
  expect_refused("small.cfg", kFailure, {"small.cfg", "not an HDF5 file", "another checkpoint"});
  expect_refused("runs/small/results.h5", kFailure,
                 {"runs/small/results.h5", "is a results file", "another checkpoint"});
}

TEST_F(BadCheckpoint, CutShort) {
  for (const int percent : {0, 10, 50, 99}) {
    SCOPED_TRACE(percent);
    fs::copy_file(path("copy.h5"), path("cut.h5"), fs::copy_options::overwrite_existing);
    fs::resize_file(path("cut.h5"), fs::file_size(path("cut.h5")) * static_cast<std::uintmax_t>(percent) / 100);
    expect_refused("cut.h5", kFailure, {"cut.h5", "another checkpoint"});
  }
}

TEST_F(BadCheckpoint, ABitFlipped) {
  std::fstream file(path("copy.h5"), std::ios::in | std::ios::out | std::ios::binary);
  const auto place = static_cast<std::streamoff>(fs::file_size(path("copy.h5")) / 2);
  file.seekg(place);
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(place).put(byte);
  file.close();
  expect_refused("copy.h5", kFailure, {"copy.h5", "checksum", "another checkpoint"});
}

TEST_F(BadCheckpoint, OfAnotherModel) {
  expect_refused("copy.h5", kUsage, {"copy.h5", "model.width: 24 -> 36", "run.name"}, {"--model.width", "36"});
  expect_refused("copy.h5", kUsage, {"copy.h5", "ffn.kind: moe -> dense", "run.name"}, {"--ffn.kind", "dense"});
}

}  // namespace
}  // namespace switchyard::test
