// Two runs at a time do not write to one folder: the second is refused, the first goes on as if it were alone.
#include <unistd.h>

#include <csignal>

#include "mistakes.hpp"

namespace switchyard::test {
namespace {

TEST_F(Mistakes, AFolderInUse) {
  const Words endless = {"--run.epochs", "100000", "--train.schedule", "constant", "--checkpoint.every", "20"};
  const auto running = start(2, training(endless));
  ASSERT_TRUE(wait_until([&] { return newest_checkpoint() > 0; }));
  const auto ranks = running->ranks();
  ASSERT_EQ(ranks.size(), 2u);
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  for (const char* how : {"--resume", "--overwrite"})
    expect_message(2, training(endless + Words{how}), kFailure,
                   {"runs/small", "in use", host, fmt::format("process {}", ranks[0]), "run.name"});

  // Another folder is free.
  EXPECT_EQ(train(1, {"--run.name", "other"}).code, 0);

  running->send(SIGUSR1);
  const Outcome stopped = running->wait();
  EXPECT_EQ(stopped.code, 75) << stopped;
  const Index step = newest_checkpoint();
  EXPECT_EQ(logged_steps(run_folder() / "results.h5"), steps_up_to(step));
}

// The kernel gives the lock back, whatever ends a run.
TEST_F(Mistakes, AFolderIsFreeAfterAKill) {
  const auto running = start(2, training({"--run.epochs", "100000"}));
  ASSERT_TRUE(wait_until([&] { return newest_checkpoint() > 0; }));
  running->send_to_ranks(SIGKILL);
  EXPECT_NE(running->wait().code, 0);
  EXPECT_EQ(train(2, {"--overwrite"}).code, 0);
}

}  // namespace
}  // namespace switchyard::test
