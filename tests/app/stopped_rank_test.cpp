// A rank that stands still, as on a node that hangs: after parallel.timeout the others end the run and name it,
// wherever it stopped. A job that its scheduler suspends goes on: no rank counts the time in which it stood still
// itself.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "program.hpp"

namespace switchyard::test {
namespace {

constexpr int kStopped = 75;

const Words kShort = {"--parallel.timeout", "3", "--run.epochs", "100000"};

// So much memory is the data's alone.
bool holds_100_megabytes(pid_t pid) { return megabytes_of(pid) > 100; }

class StoppedRank : public Program {
 protected:
  void expect_named(Running& running, const std::function<bool(pid_t)>& condition) {
    pid_t pid = -1;
    ASSERT_TRUE(wait_until([&] {
      const auto ranks = running.ranks();
      if (ranks.size() != 2 || !condition(ranks[1])) return false;
      pid = ranks[1];
      return true;
    })) << running.wait(1);
    kill(pid, SIGSTOP);
    const Outcome outcome = running.wait(30);
    EXPECT_EQ(outcome.code, 1) << outcome;
    EXPECT_NE(outcome.err.find("rank 0 waited 3 s, and there is no answer from rank 1."), std::string::npos) << outcome;
  }
};

TEST_F(StoppedRank, WhileDataLoad) {
  const auto running =
      start(2, training(kShort + Words{"--data.synthetic_samples", "20000", "--data.synthetic_size", "64"}));
  expect_named(*running, holds_100_megabytes);
  EXPECT_EQ(running->out(), "") << "it should have stopped before the data were there";
}

TEST_F(StoppedRank, WhileTraining) {
  const auto running = start(2, training(kShort + Words{"--checkpoint.every", "1000000"}));
  expect_named(*running, [&](pid_t) { return running->out().find("\nmesh: ") != std::string::npos; });
}

TEST_F(StoppedRank, WhileSaving) {
  const auto running = start(2, training(kShort + Words{"--checkpoint.every", "1", "--model.width", "192"}));
  expect_named(*running, [&](pid_t) {
    std::error_code error;
    for (std::filesystem::directory_iterator entry(run_folder(), error), end; !error && entry != end;
         entry.increment(error))
      if (entry->path().extension() == ".tmp") return true;
    return false;
  });
  newest_checkpoint();  // every file with a checkpoint's name verifies
}

// Suspended and continued node by node. The last to be suspended waits for the first; it goes on before that one does.
TEST_F(StoppedRank, AllOfThemAndContinued) {
  const auto running = start(2, training({"--parallel.timeout", "2", "--run.epochs", "100000"}));
  ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; })) << running->wait(1);
  auto ranks = running->ranks();
  ASSERT_EQ(ranks.size(), 2u);
  const auto send_to_each = [&](int signal) {
    for (const pid_t rank : ranks) {
      kill(rank, signal);
      std::this_thread::sleep_for(std::chrono::milliseconds(600));
    }
  };
  send_to_each(SIGSTOP);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  const std::size_t told = running->out().size();
  std::reverse(ranks.begin(), ranks.end());
  send_to_each(SIGCONT);
  ASSERT_TRUE(wait_until([&] { return !running->is_running() || running->out().size() > told + 500; }));
  running->send(SIGTERM);
  const Outcome outcome = running->wait();
  EXPECT_EQ(outcome.code, kStopped) << outcome;
}

}  // namespace
}  // namespace switchyard::test
