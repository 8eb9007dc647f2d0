// What a run prints: to a file or a pipe plain lines, to a terminal a bar that renews itself and never wraps.
#include <sstream>

#include "program.hpp"

namespace switchyard::test {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

void expect_plain(const std::string& text) {
  EXPECT_EQ(text.find_first_of("\033\r\b"), std::string::npos) << text;
  for (const std::string& line : lines_of(text)) EXPECT_LE(line.size(), 120u) << line;
}

TEST_F(Program, EndsWithItsResult) {
  const Outcome outcome = train(4, {"--parallel.experts", "2", "--parallel.threads", "2"});
  ASSERT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.err, "");
  expect_plain(outcome.out);
  const auto lines = lines_of(outcome.out);
  ASSERT_GE(lines.size(), 8u) << outcome;
  const auto end = lines.end();
  EXPECT_EQ(end[-4], "result runs/small/results.h5");
  EXPECT_EQ(end[-3], "checkpoint runs/small/checkpoint-00000009.h5");
  EXPECT_TRUE(testing::internal::RE::FullMatch(end[-2], R"(test accuracy [0-9]+\.[0-9]+ % loss [0-9]+\.[0-9]+)"))
      << end[-2];
  EXPECT_TRUE(testing::internal::RE::FullMatch(end[-1], "digest [0-9a-f]+")) << end[-1];
  EXPECT_EQ(outcome.digest().size(), 32u);

  // One line an epoch, and only rank 0 speaks: outcome.line() fails where a line comes twice.
  for (const char* line : {"epoch 1/3  ", "epoch 2/3  ", "epoch 3/3  ", "parameters ", "mesh: "}) outcome.line(line);
  EXPECT_EQ(outcome.line("mesh: "), "4 ranks x 2 threads, experts over 2 ranks, 2 replicas of them");
}

TEST_F(Program, SaysThatTheWarmUpIsLongerThanTheRun) {
  EXPECT_EQ(train(1, {"--train.warmup_steps", "9"}).err, "");
  const Outcome outcome = train(2, {"--train.warmup_steps", "10", "--overwrite"});
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.err,
            "switchyard: warning: train.warmup_steps = 10: the run has 9 steps, so the learning rate never reaches "
            "train.lr; warm up for fewer steps, or train for more\n");
}

TEST_F(Program, PlainThroughAPipe) {
  Running running({"bash", "-c", R"("$@" 2>&1 | cat)", "bash", SWITCHYARD_MPIRUN, "2", SWITCHYARD_PROGRAM, "train",
                   "--config", "small.cfg"},
                  folder_.path());
  const Outcome outcome = running.wait();
  EXPECT_EQ(outcome.digest().size(), 32u);
  expect_plain(outcome.out);
}

// A shell or a tool around each rank is none of the program's business.
TEST_F(Program, PlainInsideAShell) {
  Running running(mpirun(2) + Words{"bash", "-c", R"("$@"; exit $?)", "bash", SWITCHYARD_PROGRAM} + training({}),
                  folder_.path());
  const Outcome outcome = running.wait();
  EXPECT_EQ(outcome.digest().size(), 32u);
  expect_plain(outcome.out);
}

// Columns that text takes: its code points, less the escape sequences.
std::size_t columns_of(const std::string& text) {
  std::size_t columns = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\033')
      i = text.find_first_of("ABCDEFGHJKLmlh", i);
    else
      columns += (text[i] & 0xC0) != 0x80;
  }
  return columns;
}

class Terminal : public Program, public testing::WithParamInterface<std::size_t> {};

TEST_P(Terminal, BarFits) {
  // `script` runs a command in a terminal of its own.
  const std::string command = fmt::format(
      "stty cols {} rows 24; exec '{}' 2 '{}' train --config small.cfg --run.epochs 60 --checkpoint.every 1000",
      GetParam(), SWITCHYARD_MPIRUN, SWITCHYARD_PROGRAM);
  Running running({"script", "-qec", command, "/dev/null"}, folder_.path(), {{"TERM", "xterm"}});
  const Outcome outcome = running.wait();
  ASSERT_EQ(outcome.code, 0) << outcome;

  // A bar begins with a carriage return and "erase line", and ends at the next of either or at a line's end.
  int num_bars = 0;
  const std::string& out = outcome.out;
  for (auto at = out.find("\r\033[K"); at != std::string::npos; at = out.find("\r\033[K", at + 1)) {
    const std::string bar = out.substr(at + 4, out.find_first_of("\r\n", at + 4) - at - 4);
    if (!bar.starts_with("epoch ") || bar.find(" %") == std::string::npos ||
        bar.find("test accuracy") != std::string::npos)
      continue;
    ++num_bars;
    EXPECT_LT(columns_of(bar), GetParam()) << bar;
    EXPECT_NE(bar.find(" left"), std::string::npos) << bar;
    // The load goes first where there is no room.
    if (GetParam() != 80) {
      EXPECT_EQ(bar.find("  load ") != std::string::npos, GetParam() == 120) << bar;
    }
  }
  EXPECT_GT(num_bars, 1) << outcome;
  // No bar is left standing before the result.
  EXPECT_NE(out.find("\nresult runs/small/results.h5"), std::string::npos) << outcome;
  EXPECT_NE(out.find("\ndigest "), std::string::npos) << outcome;
}

INSTANTIATE_TEST_SUITE_P(Columns, Terminal, testing::Values(40u, 80u, 120u),
                         [](const auto& each) { return fmt::format("of_{}_columns", each.param); });

TEST_F(Program, NoBarOnADumbTerminal) {
  const std::string command =
      fmt::format("exec '{}' 2 '{}' train --config small.cfg", SWITCHYARD_MPIRUN, SWITCHYARD_PROGRAM);
  Running running({"script", "-qec", command, "/dev/null"}, folder_.path(), {{"TERM", "dumb"}});
  const Outcome outcome = running.wait();
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.out.find('\033'), std::string::npos) << outcome;
}

// Neither is silence: what could not be written was what the user asked for.
TEST_F(Program, AFullDeviceIsAnError) {
  ASSERT_EQ(train(1).code, 0);
  for (const char* words :
       {"--help", "--version", "train --help", "inspect runs/small/results.h5", "train --config small.cfg --resume"}) {
    SCOPED_TRACE(words);
    Running running({"bash", "-c", fmt::format("exec '{}' {} >/dev/full", SWITCHYARD_PROGRAM, words)}, folder_.path());
    const Outcome outcome = running.wait();
    EXPECT_EQ(outcome.code, 1) << outcome;
    EXPECT_NE(outcome.err.find("No space left on device"), std::string::npos) << outcome;
  }
}

}  // namespace
}  // namespace switchyard::test
