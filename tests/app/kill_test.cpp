// kill -9, which nothing can catch, of all ranks at any moment: what was saved still verifies, and the run goes on from
// there, on another number of ranks, to the result of a run that was never killed.
#include <csignal>

#include "io/checkpoint.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

const Words kLong = {"--run.epochs", "40", "--run.eval_every", "20"};  // 120 steps
constexpr Index kSteps = 120;

struct Layout {
  int ranks;
  const char* expert_ranks;
};
constexpr Layout kLayouts[] = {{2, "2"}, {1, "1"}, {4, "2"}, {2, "1"}};

bool is_saving(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".tmp") return true;
  return false;
}

Index newest_by_name(const fs::path& folder) {
  const auto checkpoints = io::list_checkpoints(folder);
  return checkpoints.empty() ? -1 : std::stoll(checkpoints.back().stem().string().substr(11));
}

TEST_F(Program, KilledAgainAndAgain) {
  const Outcome whole = train(1, kLong + Words{"--run.out", "whole"});
  ASSERT_EQ(whole.code, 0) << whole;

  // Odd tries are killed in the middle of a save, even ones in the middle of training.
  Index last = -1;
  int killed_while_saving = 0;
  for (int i = 0; i < 10; ++i) {
    const auto& [ranks, expert_ranks] = kLayouts[i % 4];
    const bool during_save = i % 2 == 1;
    const auto running = start(ranks, training(kLong + Words{"--resume", "--checkpoint.every", during_save ? "1" : "3",
                                                             "--parallel.experts", expert_ranks}));
    ASSERT_TRUE(wait_until([&] {
      if (!running->is_running()) return true;
      if (newest_by_name(run_folder()) <= last + 4) return false;
      return !during_save || is_saving(run_folder());
    }));
    ASSERT_TRUE(running->is_running()) << "try " << i << ": done before it was killed\n" << running->wait();
    running->send_to_ranks(SIGKILL);
    const Outcome killed = running->wait();
    EXPECT_NE(killed.code, 0) << killed;
    killed_while_saving += is_saving(run_folder());
    const Index newest = newest_checkpoint();
    EXPECT_GE(newest, last + 5) << "try " << i << ": no progress, or a checkpoint lost";
    last = newest;
  }
  EXPECT_GT(killed_while_saving, 0) << "no kill came in the middle of a save: this test tries less than it says";

  const Outcome resumed = train(2, kLong + Words{"--resume"});
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
  EXPECT_EQ(resumed.test_line(), whole.test_line());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(kSteps)) << "each step once";
  EXPECT_FALSE(is_saving(run_folder())) << "files that the killed left are gone";
}

TEST_F(Program, KilledBeforeItsFirstCheckpoint) {
  const Outcome whole = train(1, kLong + Words{"--run.out", "whole"});
  const auto running = start(2, training(kLong + Words{"--checkpoint.every", "1000"}));
  ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; }));
  running->send_to_ranks(SIGKILL);
  EXPECT_NE(running->wait().code, 0);
  ASSERT_EQ(newest_checkpoint(), -1);

  const Outcome resumed = train(2, kLong + Words{"--resume"});
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_NE(resumed.out.find("no checkpoint in runs/small: starting from the beginning"), std::string::npos) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(kSteps));
}

// One rank alone: the others do not wait for it for ever.
TEST_F(Program, OneRankKilled) {
  const auto running = start(4, training(kLong + Words{"--run.epochs", "100000"}));
  ASSERT_TRUE(wait_until([&] { return newest_by_name(run_folder()) > 0; }));
  const auto ranks = running->ranks();
  ASSERT_EQ(ranks.size(), 4u);
  kill(ranks[2], SIGKILL);
  EXPECT_NE(running->wait(30).code, 0);
  EXPECT_GT(newest_checkpoint(), 0);
}

}  // namespace
}  // namespace switchyard::test
