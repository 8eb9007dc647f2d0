// What --resume takes, what it passes over, and what it refuses.
#include "io/checkpoint.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

constexpr int kUsage = 2;

class Resume : public Program {
 protected:
  // 9 steps; checkpoints after each, all kept.
  void SetUp() override {
    first_ = train(2, kKeepAll);
    ASSERT_EQ(first_.code, 0) << first_;
  }

  fs::path checkpoint(Index step) const { return io::checkpoint_path(run_folder(), step); }
  void flip_a_bit(const fs::path& file) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
    stream.seekg(middle);
    const char byte = static_cast<char>(stream.get() ^ 16);
    stream.seekp(middle);
    stream.put(byte);
  }

  const Words kKeepAll = {"--checkpoint.every", "1", "--checkpoint.keep", "100"};
  Outcome first_;
};

// Mid-epoch included: an epoch has 3 steps.
TEST_F(Resume, FromEachStepOnOtherLayouts) {
  const Words layouts[] = {{"1", "1"}, {"2", "2"}, {"4", "4"}, {"8", "2"}};
  for (Index step = 1; step <= 8; ++step) {
    SCOPED_TRACE(fmt::format("from step {}", step));
    const Words& layout = layouts[step % 4];
    const Outcome resumed = train(std::stoi(layout[0]), {"--resume", checkpoint(step).string(), "--parallel.experts",
                                                         layout[1], "--checkpoint.keep", "100"});
    ASSERT_EQ(resumed.code, 0) << resumed;
    EXPECT_EQ(resumed.line("resuming "), fmt::format("{} after step {}", checkpoint(step).string(), step));
    EXPECT_EQ(resumed.digest(), first_.digest());
    EXPECT_EQ(resumed.test_line(), first_.test_line());
    EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
  }
}

TEST_F(Resume, AFinishedRunPrintsItsResultAgain) {
  const Outcome again = train(4, {"--resume"});
  EXPECT_EQ(again.code, 0) << again;
  EXPECT_EQ(again.digest(), first_.digest());
  EXPECT_EQ(again.test_line(), first_.test_line());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
}

TEST_F(Resume, PassesOverDamagedCheckpoints) {
  flip_a_bit(checkpoint(9));
  fs::resize_file(checkpoint(8), fs::file_size(checkpoint(8)) / 2);
  std::ofstream(checkpoint(7), std::ios::trunc).close();
  const Outcome resumed = train(2, Words{"--resume"} + kKeepAll);
  EXPECT_EQ(resumed.code, 0) << resumed;
  for (const char* name : {"checkpoint-00000009.h5", "checkpoint-00000008.h5", "checkpoint-00000007.h5"}) {
    const auto at = resumed.err.find(name);
    ASSERT_NE(at, std::string::npos) << "no warning of " << name << "\n" << resumed;
    const auto line = resumed.err.rfind('\n', at) + 1;
    EXPECT_EQ(resumed.err.substr(line, 20), "switchyard: warning:") << resumed;
  }
  EXPECT_EQ(resumed.line("resuming "), "runs/small/checkpoint-00000006.h5 after step 6");
  EXPECT_EQ(resumed.digest(), first_.digest());
  EXPECT_EQ(newest_checkpoint(), 9);
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));
}

TEST_F(Resume, RefusesAnotherConfigurationNamingTheKeys) {
  const Outcome other = train(2, {"--resume", "--train.lr", "0.5", "--ffn.router", "random"});
  EXPECT_EQ(other.code, kUsage) << other;
  for (const char* part : {"checkpoint-00000009.h5", "train.lr: 0.01 -> 0.5", "ffn.router: switch -> random"})
    EXPECT_NE(other.err.find(part), std::string::npos) << "missing: " << part << "\n" << other;
  EXPECT_EQ(train(2, {"--resume"}).digest(), first_.digest()) << "nothing was lost";
}

TEST_F(Resume, RefusesToReplaceARunUnasked) {
  const auto saved = fs::last_write_time(checkpoint(9));
  const Outcome again = train(2);
  EXPECT_EQ(again.code, kUsage) << again;
  for (const char* part : {"runs/small", "--resume", "--overwrite", "run.name"})
    EXPECT_NE(again.err.find(part), std::string::npos) << "missing: " << part << "\n" << again;
  EXPECT_EQ(fs::last_write_time(checkpoint(9)), saved);
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(9));

  const Outcome replaced = train(2, {"--overwrite", "--run.steps", "2"});
  EXPECT_EQ(replaced.code, 0) << replaced;
  EXPECT_EQ(newest_checkpoint(), 2) << "checkpoints of the earlier run are gone";
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(2));
}

TEST_F(Resume, RefusesToDoBoth) {
  const Outcome both = train(2, {"--resume", "--overwrite"});
  EXPECT_EQ(both.code, kUsage) << both;
  EXPECT_EQ(newest_checkpoint(), 9);
}

TEST_F(Resume, WithoutItsResultsFileKeepsTheCheckpointsResult) {
  fs::remove(run_folder() / "results.h5");
  const Outcome resumed = train(2, Words{"--resume", checkpoint(5).string()} + kKeepAll);
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.digest(), first_.digest());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), (std::vector<Index>{6, 7, 8, 9}));
}

}  // namespace
}  // namespace switchyard::test
