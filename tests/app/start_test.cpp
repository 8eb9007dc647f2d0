// train.start at the command line: leaves tuned under a hardened tree, on any layout, and killed on the way.
#include <csignal>

#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSoft = "runs/soft/checkpoint-00000003.h5";
const Words kTree = {"--ffn.kind", "fff", "--ffn.depth", "3", "--ffn.leaf", "4"};
const Words kTuning = kTree + Words{"--ffn.tree", "hard", "--train.start", kSoft, "--run.name"};

class Start : public Mistakes {
 protected:
  void SetUp() override {
    const Outcome soft = train(2, kTree + Words{"--run.name", "soft", "--run.epochs", "1"});
    ASSERT_EQ(soft.code, 0) << soft;
    digest_ = soft.digest();
  }
  std::string digest_;
};

TEST_F(Start, OnAnyLayout) {
  const std::string origin = std::string("parameters of ") + kSoft + " after step 3, digest " + digest_;
  const Outcome alone = train(1, kTuning + Words{"alone"});
  ASSERT_EQ(alone.code, 0) << alone;
  EXPECT_EQ(alone.line("starting from "), origin);
  EXPECT_EQ(logged_steps(path("runs/alone/results.h5")), steps_up_to(9));
  EXPECT_EQ(io::describe_results(path("runs/alone/results.h5")).attributes.at("origin"), origin);
  EXPECT_EQ(io::read_checkpoint_info(path("runs/alone/checkpoint-00000009.h5")).attributes.at("origin"), origin);
  for (const auto& [ranks, expert_ranks] : {std::pair{2, "1"}, {2, "2"}, {4, "4"}}) {
    SCOPED_TRACE(fmt::format("{} ranks, parallel.experts = {}", ranks, expert_ranks));
    const Outcome outcome = train(ranks, kTuning + Words{"again", "--overwrite", "--parallel.experts", expert_ranks});
    EXPECT_EQ(outcome.digest(), alone.digest()) << outcome;
    EXPECT_EQ(outcome.test_line(), alone.test_line());
  }
  const Words drawn = kTree + Words{"--ffn.tree", "hard", "--run.name", "drawn"};
  EXPECT_NE(train(2, drawn).digest(), alone.digest()) << "it did not begin with the checkpoint";
}

TEST_F(Start, KilledAndResumedWithoutTheFile) {
  const Words words = kTuning + Words{"tuned", "--run.epochs", "40", "--checkpoint.every", "1"};
  const Outcome whole = train(1, words + Words{"--run.out", "whole"});
  const auto running = start(2, training(words));
  ASSERT_TRUE(wait_until([&] { return io::list_checkpoints(path("runs/tuned")).size() > 1; }));
  running->send_to_ranks(SIGKILL);
  EXPECT_NE(running->wait().code, 0);
  fs::remove(path(kSoft));
  const Outcome resumed = train(4, words + Words{"--resume", "--parallel.experts", "2"});
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.out.find("starting from"), std::string::npos) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
  EXPECT_EQ(logged_steps(path("runs/tuned/results.h5")), steps_up_to(120));
  const auto results = io::describe_results(path("runs/tuned/results.h5")).attributes;
  EXPECT_NE(results.at("origin").find(kSoft), std::string::npos);
}

TEST_F(Start, ResumedWithoutACheckpointBeginsWithTheFile) {
  const Outcome whole = train(1, kTuning + Words{"tuned", "--run.out", "whole"});
  const Outcome resumed = train(2, kTuning + Words{"tuned", "--resume"});
  EXPECT_NE(resumed.out.find("no checkpoint in runs/tuned: starting from the beginning"), std::string::npos) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
}

TEST_F(Start, RefusesWhatItCannotTake) {
  const auto refuses = [&](const std::string& file, const Words& parts, const Words& words = {}, int code = kFailure) {
    SCOPED_TRACE(file);
    expect_message(2, training(kTuning + Words{"soft", "--overwrite", "--train.start", file} + words), code,
                   parts + Words{"train.start: " + file});
  };
  fs::copy_file(path(kSoft), path("cut.h5"));
  fs::resize_file(path("cut.h5"), fs::file_size(path("cut.h5")) / 2);
  refuses("none.h5", {"No such file", "give a checkpoint"}, {}, kUsage);
  refuses("runs", {"not a file"}, {}, kUsage);
  refuses("small.cfg", {"not an HDF5 file"});
  refuses("cut.h5", {"damaged or cut short"});
  refuses(kSoft, {"parameters/blocks.0.leaves.w1", "(8, 4, 24)", "(8, 5, 24)", "another model"}, {"--ffn.leaf", "5"});
  refuses(kSoft, {"parameters/blocks.0.ffn.w1"}, {"--ffn.kind", "dense"});
  EXPECT_EQ(io::describe_checkpoint(path(kSoft)).info.digest, digest_) << "nothing was overwritten";
}

TEST_F(Start, IsNotOverwritten) {
  expect_message(2, training(kTuning + Words{"soft", "--overwrite"}), kUsage,
                 {std::string("train.start = ") + kSoft, "--overwrite", "run.name"});
  EXPECT_EQ(io::describe_checkpoint(path(kSoft)).info.digest, digest_);
}

TEST_F(Start, IsPartOfWhatTheResultDependsOn) {
  ASSERT_EQ(train(2, kTuning + Words{"tuned", "--run.epochs", "1"}).code, 0);
  expect_message(2,
                 training(kTree + Words{"--ffn.tree", "hard", "--run.name", "tuned", "--run.epochs", "1", "--resume"}),
                 kUsage, {std::string("train.start: ") + kSoft, "run.name"});
}

}  // namespace
}  // namespace switchyard::test
