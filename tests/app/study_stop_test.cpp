// switchyard study: runs that are stopped, killed, or wanted by two at once.
#include <algorithm>
#include <csignal>

#include "study_program.hpp"

namespace switchyard::test {
namespace {

constexpr int kStopped = 75;

TEST_F(StudyProgram, StoppedBySignalAndGoneOnWith) {
  const Words slow = {"--run.epochs", "200", "--run.eval_every", "0", "--only", "3"};
  const auto running = begin(Words{"run", "tiny.cfg"} + slow);
  ASSERT_TRUE(wait_until([&] { return log_of("experts4-seed2").find("mesh: ") != std::string::npos; }));
  expect_state("experts4-seed2", "foreign");  // to the study of the file, where epochs are fewer
  running->send(SIGINT);
  const Outcome stopped = running->wait();
  EXPECT_EQ(stopped.code, kStopped) << stopped;
  expect_part(stopped.out, "stopped  experts4-seed2");
  expect_part(log_of("experts4-seed2"), "stopped after step");
  const Outcome resumed = run(slow);
  EXPECT_EQ(resumed.code, 0) << resumed;
  expect_part(log_of("experts4-seed2"), "resuming ");
  EXPECT_EQ(logged_steps(run_of("experts4-seed2") / "results.h5"), steps_up_to(600)) << "each step once";
}

TEST_F(StudyProgram, KilledItTakesItsRunsAlongAndTheyGoOn) {
  const Words slow = {"--run.epochs", "200", "--run.eval_every", "0", "--only", "3"};
  const auto running = begin(Words{"run", "tiny.cfg"} + slow);
  ASSERT_TRUE(wait_until([&] { return log_of("experts4-seed2").find("mesh: ") != std::string::npos; }));
  const Outcome status = study({"status", "runs/tiny"});
  expect_part(status.line("experts4-seed2 "), "running");
  running->send(SIGKILL);
  EXPECT_EQ(running->wait().code, 128 + SIGKILL);
  ASSERT_TRUE(wait_until([&] { return log_of("experts4-seed2").find("stopped after step") != std::string::npos; }))
      << "its training stops as well";
  ASSERT_TRUE(wait_until([&] {
    return study({"status", "runs/tiny"}).line("experts4-seed2 ").find("goes on from") != std::string::npos;
  }));
  EXPECT_EQ(run(slow).code, 0);
  EXPECT_EQ(logged_steps(run_of("experts4-seed2") / "results.h5"), steps_up_to(600)) << "each step once";
}

// Its ranks may hold the folder for a moment longer: no other process does.
TEST_F(StudyProgram, ARunWhoseLauncherIsKilledHasFailed) {
  const auto running = begin({"run", "tiny.cfg", "--run.epochs", "100000", "--run.eval_every", "0", "--only", "3"});
  ASSERT_TRUE(wait_until([&] { return log_of("experts4-seed2").find("mesh: ") != std::string::npos; }));
  const std::vector<pid_t> ranks = running->ranks();
  running->send_to_mpirun(SIGKILL);
  const Outcome outcome = running->wait();
  EXPECT_TRUE(wait_until([&] { return std::none_of(ranks.begin(), ranks.end(), is_program); }));
  EXPECT_EQ(outcome.code, 1) << outcome;
  expect_part(outcome.out, "failed   experts4-seed2");
  expect_part(outcome.out, "1 run, 0 done, 1 failed");
}

TEST_F(StudyProgram, ARunWhoseFolderBecomesAFileHasFailed) {
  const auto running = begin({"run", "tiny.cfg", "--run.epochs", "100000", "--run.eval_every", "0", "--only", "3"});
  ASSERT_TRUE(wait_until([&] { return log_of("experts4-seed2").find("mesh: ") != std::string::npos; }));
  fs::rename(run_of("experts4-seed2"), path("aside"));
  folder_.write("runs/tiny/experts4-seed2", "");
  const Outcome outcome = running->wait();
  EXPECT_EQ(outcome.code, 1) << outcome;
  expect_part(outcome.out, "failed   experts4-seed2");
  expect_part(outcome.out, "1 run, 0 done, 1 failed");
}

// A training that no checkpoint is to be had from.
TEST_F(StudyProgram, ASecondSignalEndsWhatDoesNotStop) {
  folder_.write("stubborn", "#!/bin/sh\ntrap '' USR1 TERM INT HUP\ntouch begun\nexec sleep 100\n");
  fs::permissions(path("stubborn"), fs::perms::owner_all);
  const auto running =
      begin({"run", "tiny.cfg", "--only", "0", "--launcher", "'" SWITCHYARD_MPIRUN "' {ranks} ./stubborn"});
  ASSERT_TRUE(wait_until([&] { return fs::exists(path("begun")); }));
  running->send(SIGINT);
  ASSERT_TRUE(wait_until([&] { return running->out().find("stopping 1 run") != std::string::npos; }));
  EXPECT_TRUE(running->is_running());
  running->send(SIGINT);
  const Outcome outcome = running->wait(20);
  EXPECT_EQ(outcome.code, kStopped) << outcome;
  expect_part(outcome.out, "stopped  experts1-seed1");
}

TEST_F(StudyProgram, ARunThatAnotherBeganAtTheSameTimeIsLeftToIt) {
  folder_.write("late", "#!/bin/sh\ntouch waiting\nwhile [ ! -e go ]; do sleep 0.05; done\nexec \"$@\"\n");
  fs::permissions(path("late"), fs::perms::owner_all);
  const Words slow = {"run", "tiny.cfg", "--run.epochs", "100000", "--run.eval_every", "0", "--only", "3"};
  const auto second = begin(slow + Words{"--launcher", "./late '" SWITCHYARD_MPIRUN "' {ranks}"});
  ASSERT_TRUE(wait_until([&] { return fs::exists(path("waiting")); }));
  const auto first = begin(slow);
  ASSERT_TRUE(wait_until([&] { return log_of("experts4-seed2").find("mesh: ") != std::string::npos; }));
  folder_.write("go", "");
  const Outcome left = second->wait();
  EXPECT_EQ(left.code, 0) << left;
  expect_part(left.out, "left     experts4-seed2: another process began it");
  first->send(SIGINT);
  EXPECT_EQ(first->wait().code, kStopped);
}

}  // namespace
}  // namespace switchyard::test
