// What a benchmark shows before, while and after it measures: help, heading, progress, how it stops, what inspect says.
#include <csignal>
#include <cstring>
#include <sstream>

#include "program.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

void expect_parts(const std::string& text, const Words& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "missing: " << part << "\n" << text;
}

TEST_F(Program, BenchHelpOfOneBenchmarkIsAboutIt) {
  const std::string all = run(2, {"bench", "--help"}).out;
  expect_parts(all, {"bench step", "bench products", "bench kernels", "bench exchange",
                     "[--output FILE.h5 [--overwrite]]", "switchyard train --help"});
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 119u) << line;
  const std::string step = run(1, {"bench", "step", "--help"}).out;
  EXPECT_TRUE(step.starts_with("switchyard bench step ")) << step;
  expect_parts(step, {"tree_carry", "pack_b", "outside kernels", "share", "--profile"});
  EXPECT_EQ(step.find("--output"), std::string::npos) << step;
  const std::string exchange = run(1, {"bench", "exchange", "--help"}).out;
  expect_parts(exchange, {"half to one", "least", "counts", "--overwrite"});
  EXPECT_EQ(exchange.find("tree_carry"), std::string::npos) << exchange;
}

TEST_F(Program, BenchSaysWhatItMeasures) {
  const Outcome defaults = run(2, {"bench", "step", "--steps", "1"});
  EXPECT_EQ(defaults.code, 0) << defaults;
  expect_parts(defaults.out,
               {", fp32\n", "no --config: the defaults of switchyard train --help\n", "; 1 step, medians\n"});
  EXPECT_EQ(defaults.out.find("experts over"), std::string::npos) << "a dense model has none\n" << defaults;
  const Outcome named = run(2, {"bench", "products", "--config", "small.cfg", "--steps", "1"});
  EXPECT_EQ(named.code, 0) << named;
  EXPECT_EQ(named.out.find("no --config"), std::string::npos) << named;
}

TEST_F(Program, BenchStepPrintsItsHeadingAtOnceAndThenNothingUntilItsTable) {
  const auto running = start(2, {"bench", "step", "--config", "small.cfg", "--steps", "100000"});
  ASSERT_TRUE(wait_until([&] { return running->out().find("matrix products an image\n") != std::string::npos; }));
  running->send(SIGTERM);
  const Outcome stopped = running->wait();
  EXPECT_EQ(stopped.code, 1) << stopped;
  EXPECT_TRUE(stopped.out.ends_with("matrix products an image\n\n")) << stopped;
  EXPECT_EQ(stopped.out.find('\r'), std::string::npos) << stopped;
}

TEST_F(Program, BenchStepShowsItsProgressOnATerminal) {
  const std::string command = fmt::format("stty cols 80; exec '{}' 2 '{}' bench step --config small.cfg --steps 3",
                                          SWITCHYARD_MPIRUN, SWITCHYARD_PROGRAM);
  const Outcome outcome = Running({"script", "-qec", command, "/dev/null"}, folder_.path(), {{"TERM", "xterm"}}).wait();
  EXPECT_EQ(outcome.code, 0) << outcome;
  expect_parts(outcome.out,
               {"\r\033[Kwarming up", "\r\033[Kstep 3 of 3, ", "images/s so far\r\033[K", "\ntraining step "});
}

// 128 + signal would be a rank that could not say why it ended.
TEST_F(Program, BenchThatIsStoppedSaysSoAndLeavesNoFile) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    SCOPED_TRACE(strsignal(signal));
    const auto running = start(2, {"bench", "kernels", "--config", "small.cfg", "--steps", "2000", "--output", "k.h5"});
    ASSERT_TRUE(wait_until([&] { return running->out().find("\ngemm ") != std::string::npos; }));
    running->send(signal);
    const Outcome stopped = running->wait();
    EXPECT_EQ(stopped.code, 1) << stopped;
    EXPECT_EQ(stopped.err, "switchyard: bench stopped before its end\n");
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      EXPECT_FALSE(entry.path().filename().string().starts_with("k.h5")) << entry.path();
  }
}

TEST_F(Program, BenchWhoseReaderLeavesSaysThatItStopped) {
  const char* const command = R"("$@" | head -n 1; exit ${PIPESTATUS[0]})";
  Running running({"bash", "-c", command, "bash", SWITCHYARD_PROGRAM, "bench", "kernels", "--config", "small.cfg",
                   "--steps", "2000", "--output", "k.h5"},
                  folder_.path());
  const Outcome stopped = running.wait();
  EXPECT_EQ(stopped.code, 1) << stopped;
  EXPECT_EQ(stopped.err, "switchyard: bench stopped before its end\n");
  for (const auto& entry : fs::directory_iterator(folder_.path()))
    EXPECT_FALSE(entry.path().filename().string().starts_with("k.h5")) << entry.path();
}

TEST_F(Program, InspectDescribesABenchFile) {
  ASSERT_EQ(run(2, {"bench", "exchange", "--config", "small.cfg", "--parallel.experts", "2", "--steps", "1", "--output",
                    "e.h5"})
                .code,
            0);
  const Outcome outcome = run(1, {"inspect", "e.h5"});
  EXPECT_EQ(outcome.code, 0) << outcome;
  expect_parts(outcome.out, {"e.h5: bench exchange\n", "\ncommand switchyard bench exchange --config small.cfg ",
                             "\nmachine ", "\ndate ", "\ntable exchange: 6 rows, 9 columns", "see h5py"});
  EXPECT_NE(run(1, {"inspect", "--help"}).out.find("BENCH.h5"), std::string::npos);
  const Outcome several = run(1, {"inspect", "e.h5", "e.h5"});
  EXPECT_NE(several.err.find("e.h5: holds a benchmark"), std::string::npos) << several;
}

}  // namespace
}  // namespace switchyard::test
