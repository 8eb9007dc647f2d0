// A run that is told to stop finishes its step, gives up an evaluation, writes a checkpoint and exits with code 75;
// resumed, on whatever layout, it ends where a run that was never stopped ends.
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include "data_files.hpp"
#include "io/checkpoint.hpp"
#include "io/results.hpp"
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
  EXPECT_GE(step, 0);
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
  EXPECT_GE(newest_checkpoint(), 0);
}

// ... and so may each reach a rank more than once, the ranks until they have ended.
TEST_F(Program, ARankMayBeToldToStopAgainAndAgain) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    SCOPED_TRACE(strsignal(signal));
    const auto running = start(2, training(kLong + Words{"--overwrite"}));
    ASSERT_TRUE(wait_until([&] { return running->out().find("\nmesh: ") != std::string::npos; }));
    ASSERT_TRUE(wait_until([&] {
      running->send_to_ranks(signal);
      return !running->is_running();
    }));
    const Outcome stopped = running->wait();
    EXPECT_EQ(stopped.code, kStopped) << stopped;
    EXPECT_GE(newest_checkpoint(), 0);
  }
}

bool wait_for_checkpoint(Running& running, const std::filesystem::path& folder, Index step) {
  return wait_until(
             [&] { return std::filesystem::exists(io::checkpoint_path(folder, step)) || !running.is_running(); }) &&
         running.is_running();
}

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Steps of half a second or more.
const Words kLongSteps = {
    "--data.synthetic_samples", "8192", "--train.batch", "4096", "--model.width", "48", "--run.steps", "3",
    "--checkpoint.every",       "1"};

TEST_F(Program, ASignalEndsTheStepAtHandAndNoOther) {
  for (const bool to_one_rank : {false, true}) {
    const std::string out = to_one_rank ? "one" : "all";
    const auto running = start(2, training(kLongSteps + Words{"--run.out", out}));
    ASSERT_TRUE(wait_for_checkpoint(*running, path(out) / "small", 1)) << running->wait();
    sleep_for(0.1);
    if (to_one_rank)
      kill(running->ranks()[1], SIGTERM);
    else
      running->send(SIGUSR1);
    const Outcome stopped = running->wait();
    EXPECT_EQ(stopped.code, kStopped) << stopped;
    EXPECT_EQ(stopped.line("stopped after step "), "2 on signal; go on with --resume");
  }
}

// Told so while its data load.
TEST_F(Program, AStopBeforeTheFirstStepTakesNone) {
  const Words large = {"--data.synthetic_samples", "4000", "--data.synthetic_size", "64", "--run.steps", "1"};
  const auto running = start(2, training(large));
  ASSERT_TRUE(wait_until([&] {
    const auto ranks = running->ranks();
    return ranks.size() == 2 && megabytes_of(ranks[0]) > 30 && megabytes_of(ranks[1]) > 30;
  }));
  running->send(SIGUSR1);
  const Outcome stopped = running->wait();
  EXPECT_EQ(stopped.code, kStopped) << stopped;
  EXPECT_EQ(stopped.line("stopped after step "), "0 on signal; go on with --resume");
  EXPECT_EQ(newest_checkpoint(), 0);
}

// A pipe in which nothing comes. There is no run yet that could stop in good order.
TEST_F(Program, AConfigurationMayComeFromAPipe) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  const auto running = start(1, {"train", "--config", "pipe", "--run.name", "piped", "--run.steps", "1"});
  std::ifstream small(path("small.cfg"));
  std::ofstream(path("pipe")) << small.rdbuf();
  EXPECT_EQ(running->wait().code, 0);
  EXPECT_TRUE(std::filesystem::exists(path("runs/piped/results.h5")));
  EXPECT_NE(io::read_checkpoint_info(path("runs/piped/checkpoint-00000001.h5")).config.find("batch = 48"),
            std::string::npos);
}

TEST_F(Program, AStopWhileTheConfigurationIsReadEndsTheProgram) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  const auto running = start(1, {"train", "--config", "pipe"});
  ASSERT_TRUE(wait_until([&] { return running->ranks().size() == 1; }));
  running->send_to_ranks(SIGTERM);  // at its start: it may not read yet
  EXPECT_EQ(running->wait(20).code, 128 + SIGTERM);
  EXPECT_FALSE(std::filesystem::exists(path("runs")));
}

// 2 steps an epoch, and an evaluation that takes a second or so, after each.
class StopWhileEvaluating : public Program {
 protected:
  StopWhileEvaluating() {
    const auto data = path("mnist");
    write_gzip(data / "train-images-idx3-ubyte.gz", idx_images(128));
    write_gzip(data / "train-labels-idx1-ubyte.gz", idx_labels(128));
    write_gzip(data / "t10k-images-idx3-ubyte.gz", idx_images(kTestSamples));
    write_gzip(data / "t10k-labels-idx1-ubyte.gz", idx_labels(kTestSamples));
  }

  // Stopped in the evaluation after step `step`.
  void stop_after(Index step, const Words& words, int ranks) {
    const auto running = start(ranks, training(words));
    ASSERT_TRUE(wait_for_checkpoint(*running, run_folder(), step - 1)) << running->wait();
    sleep_for(0.2);
    running->send(SIGUSR1);
    const Outcome stopped = running->wait();
    ASSERT_EQ(stopped.code, kStopped) << stopped;
    EXPECT_EQ(stopped.line("stopped after step "), fmt::format("{} on signal; go on with --resume", step));
    EXPECT_EQ(newest_checkpoint(), step);
    for (const io::EvaluationRow& row : evaluations("runs")) EXPECT_LT(row.step, step);
  }

  std::vector<io::EvaluationRow> evaluations(const std::string& out) const {
    return io::describe_results(path(out) / "small/results.h5").evaluations;
  }

  static constexpr Index kTestSamples = 2500;
  const Words kEvaluated = {"--data.kind",       "mnist",    "--data.path",        "mnist",
                            "--data.validation", "0.25",     "--train.patience",   "1",
                            "--train.plateau",   "1",        "--train.plateau_of", "validation",
                            "--train.schedule",  "constant", "--model.width",      "96",
                            "--run.log_every",   "3",        "--checkpoint.every", "1"};
};

TEST_F(StopWhileEvaluating, GivesItUpAndMakesItOnResume) {
  const Outcome whole = train(1, kEvaluated + Words{"--run.out", "whole"});
  ASSERT_EQ(whole.code, 0) << whole;
  ASSERT_NO_FATAL_FAILURE(stop_after(2, kEvaluated, 2));
  ASSERT_NO_FATAL_FAILURE(stop_after(4, kEvaluated + Words{"--resume", "--parallel.experts", "2"}, 4));
  const Outcome resumed = train(1, kEvaluated + Words{"--resume"});
  EXPECT_EQ(resumed.code, 0) << resumed;
  EXPECT_EQ(resumed.digest(), whole.digest());
  EXPECT_EQ(resumed.test_line(), whole.test_line());
  for (const char* line : {"generalisation ", "stopped early: "}) EXPECT_EQ(resumed.line(line), whole.line(line));
  const auto found = evaluations("runs"), expected = evaluations("whole");
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].step, expected[i].step);
    EXPECT_EQ(found[i].loss, expected[i].loss);
    EXPECT_EQ(found[i].validation_loss, expected[i].validation_loss);
  }
  EXPECT_EQ(logged_steps(path("runs") / "small/results.h5"), logged_steps(path("whole") / "small/results.h5"));
  // Once made it is not due any more.
  const Outcome again = train(1, kEvaluated + Words{"--resume"});
  EXPECT_EQ(again.digest(), whole.digest()) << again;
  EXPECT_EQ(evaluations("runs").size(), expected.size());
}

// Without a launcher between: the terminal is closed, and nohup was asked for or not.
TEST_F(Program, AHangupStopsUnlessUnderNohup) {
  const Words program = Words{SWITCHYARD_PROGRAM} + training({"--run.epochs", "100000", "--overwrite"});
  const auto wait_for_output = [](Running& running, std::size_t size) {
    return wait_until([&] { return running.out().size() > size || !running.is_running(); });
  };
  Running plain(program, folder_.path());
  ASSERT_TRUE(wait_for_output(plain, 500));
  plain.send(SIGHUP);
  const Outcome hung_up = plain.wait();
  EXPECT_EQ(hung_up.code, kStopped) << hung_up;

  Running ignoring(Words{"nohup"} + program, folder_.path());
  ASSERT_TRUE(wait_for_output(ignoring, 500));
  ignoring.send(SIGHUP);
  ASSERT_TRUE(wait_for_output(ignoring, ignoring.out().size() + 500));
  EXPECT_TRUE(ignoring.is_running());
  ignoring.send(SIGTERM);
  const Outcome stopped = ignoring.wait();
  EXPECT_EQ(stopped.code, kStopped) << stopped;
}

}  // namespace
}  // namespace switchyard::test
