// A run that is told to stop finishes its step, writes a checkpoint and exits with code 75; resumed, on whatever
// layout, it ends where a run that was never stopped ends.
#include <csignal>

#include "program.hpp"

namespace switchyard::test {
namespace {

constexpr int kStopped = 75;

// Slow enough to be stopped in the middle of an epoch, on purpose at a place that differs from run to run.
const Words kLong = {"--run.epochs", "60", "--run.eval_every", "30", "--checkpoint.every", "1000"};

struct Case {
  const char* name;
  int signal;
  bool to_one_rank;  // to rank 1 alone; otherwise to what the user started
};

class Stop : public Program, public testing::WithParamInterface<Case> {};

TEST_P(Stop, ResumesToTheSameResult) {
  static Outcome whole;  // the same for every signal
  if (whole.code != 0) whole = train(1, kLong + Words{"--run.out", "whole"});
  ASSERT_EQ(whole.code, 0) << whole;

  const auto running = start(2, training(kLong + Words{"--parallel.experts", "2"}));
  ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; })) << running->wait(1);
  const auto ranks = running->ranks();
  ASSERT_EQ(ranks.size(), 2u);
  if (GetParam().to_one_rank)
    kill(ranks[1], GetParam().signal);
  else
    running->send(GetParam().signal);
  const Outcome stopped = running->wait();

  EXPECT_EQ(stopped.code, kStopped) << stopped;
  const Index step = newest_checkpoint();
  EXPECT_GT(step, 0);
  EXPECT_LT(step, 180);
  EXPECT_EQ(stopped.line("stopped after step "), fmt::format("{} on signal; go on with --resume", step));
  EXPECT_EQ(stopped.line("checkpoint "), fmt::format("runs/small/checkpoint-{:08}.h5", step));
  EXPECT_EQ(stopped.line("result "), "runs/small/results.h5");
  EXPECT_EQ(stopped.out.find("digest"), std::string::npos) << "the run is not done";
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(step));

  const Outcome resumed = train(4, kLong + Words{"--resume", "--parallel.experts", "4"});
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
  EXPECT_EQ(resumed.test_line(), whole.test_line());
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(180)) << "each step once";
}

INSTANTIATE_TEST_SUITE_P(Signals, Stop,
                         testing::Values(Case{"sigterm", SIGTERM, false}, Case{"sigint", SIGINT, false},
                                         Case{"sigusr1", SIGUSR1, false}, Case{"sigterm_to_a_rank", SIGTERM, true},
                                         Case{"sigint_to_a_rank", SIGINT, true},
                                         Case{"sigusr1_to_a_rank", SIGUSR1, true}),
                         [](const auto& each) { return each.param.name; });

// One signal may reach a run through several hands: mpirun, the batch system, the terminal.
TEST_F(Program, EveryRankMayBeToldToStop) {
  const auto running = start(4, training(kLong));
  ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; }));
  running->send_to_ranks(SIGTERM);
  const Outcome stopped = running->wait();
  EXPECT_EQ(stopped.code, kStopped) << stopped;
  EXPECT_GT(newest_checkpoint(), 0);
}

// ... and so may each reach a rank more than once, the ranks until they have ended.
TEST_F(Program, ARankMayBeToldToStopAgainAndAgain) {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    SCOPED_TRACE(signal);
    const auto running = start(2, training(kLong + Words{"--overwrite"}));
    ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; }));
    ASSERT_TRUE(wait_until([&] {
      running->send_to_ranks(signal);
      return !running->is_running();
    }));
    const Outcome stopped = running->wait();
    EXPECT_EQ(stopped.code, kStopped) << stopped;
    EXPECT_GT(newest_checkpoint(), 0);
  }
}

TEST_F(Program, AStopDuringTheLastStepIsTheEnd) {
  const Words one_step = {"--run.steps", "1", "--data.synthetic_samples", "48"};
  const auto running = start(1, training(one_step));
  ASSERT_TRUE(
      wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos || !running->is_running(); }));
  running->send(SIGUSR1);
  const Outcome outcome = running->wait();
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.digest().size(), 32u);
}

}  // namespace
}  // namespace switchyard::test
