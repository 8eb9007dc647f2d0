// What can be done with a run's files afterwards: eval, inspect, and bench beside them.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "data_files.hpp"
#include "io/checkpoint.hpp"
#include "io/results.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCheckpoint = "runs/small/checkpoint-00000009.h5";
constexpr const char* kResults = "runs/small/results.h5";

void expect_parts(const Outcome& outcome, const Words& parts) {
  EXPECT_EQ(outcome.code, 0) << outcome;
  for (const std::string& part : parts)
    EXPECT_NE(outcome.out.find(part), std::string::npos) << "missing: " << part << "\n" << outcome;
}

// Neither a batch's worth of training samples nor, where there are files, the training split's.
TEST_F(Program, EvalNeedsTheTestSplitAlone) {
  ASSERT_EQ(train(1, {"--run.steps", "1"}).code, 0);
  const Words eval = {"eval", "runs/small/checkpoint-00000001.h5"};
  const Outcome few = run(2, eval + Words{"--data.limit", "3"});
  EXPECT_EQ(few.code, 0) << few;
  EXPECT_NE(few.out.find("3 test samples"), std::string::npos) << few;
  const Outcome refused = train(1, {"--data.limit", "3", "--run.name", "few"});
  EXPECT_EQ(refused.code, 2) << refused;
  EXPECT_NE(refused.err.find("train.batch = 48 is more than the 3 training samples"), std::string::npos) << refused;
  EXPECT_FALSE(std::filesystem::exists(path("runs/few"))) << "nothing is begun";

  const Words mnist = {"--data.kind", "mnist", "--model.patch", "7", "--data.path", "mnist"};
  write_mnist(path("mnist"));
  const Outcome trained = train(2, mnist + Words{"--run.name", "m", "--run.steps", "1"});
  ASSERT_EQ(trained.code, 0) << trained;
  std::filesystem::remove(path("mnist/train-images-idx3-ubyte.gz"));
  std::filesystem::remove(path("mnist/train-labels-idx1-ubyte.gz"));
  const Words eval_mnist = {"eval", "runs/m/checkpoint-00000001.h5"};
  EXPECT_EQ(run(2, eval_mnist).test_line(), trained.test_line());
  EXPECT_EQ(run(1, eval_mnist + Words{"--run.measure_training", "true"}).code, 1) << "that asks for the training split";
}

TEST_F(Program, EvalRepeatsWhatTrainFoundOnAnyLayout) {
  const Outcome trained = train(2, {"--parallel.experts", "2"});
  for (const auto& [ranks, expert_ranks] : {std::pair{1, "1"}, {2, "1"}, {4, "4"}, {8, "2"}}) {
    SCOPED_TRACE(fmt::format("{} ranks, parallel.experts = {}", ranks, expert_ranks));
    const Outcome evaluated = run(ranks, {"eval", kCheckpoint, "--parallel.experts", expert_ranks});
    EXPECT_EQ(evaluated.code, 0) << evaluated;
    EXPECT_EQ(evaluated.test_line(), trained.test_line());
    EXPECT_EQ(evaluated.digest(), trained.digest());
  }
  const Outcome averaged = run(2, {"eval", kCheckpoint, "--parallel.experts", "1", "--ffn.inference", "average"});
  EXPECT_EQ(averaged.digest(), trained.digest());
  EXPECT_NE(averaged.test_line(), trained.test_line()) << "the mean of the experts is another function";
}

// Parameters of the study that these models repeat.
TEST_F(Program, InspectCountsTheStudysParameters) {
  const fs::path configs(SWITCHYARD_CONFIGS);
  expect_parts(run(1, {"inspect", configs / "vit-seed-dense.cfg"}),
               {"parameters 12,798,490 stored, 12,798,490 active\n"});
  expect_parts(run(1, {"inspect", configs / "vit-seed-switch.cfg"}),
               {"parameters 34,979,002 stored, 12,812,938 active\n"});
  expect_parts(run(1, {"inspect", configs / "vit-seed-random.cfg"}),
               {"parameters 34,964,554 stored, 12,798,490 active\n"});
}

TEST_F(Program, InspectSaysWhatFilesHold) {
  const std::string digest = train(2).digest();
  expect_parts(run(1, {"inspect", kCheckpoint}),
               {"checkpoint after step 9, verified", digest, "embedding.weight", "24 x 48", "[train]\nbatch = 48\n"});
  expect_parts(run(2, {"inspect", kResults}), {"9 logged steps, finished", digest, "ranks 2", "[train]\nbatch = 48\n"});
  train(2, {"--run.name", "other", "--run.seed", "4"});
  const Outcome two = run(1, {"inspect", kResults, "runs/other/results.h5"});
  expect_parts(two, {"small", "other"});
  EXPECT_EQ(two.out.find("M_A"), std::string::npos) << two;
  train(2, {"--run.name", "measured", "--run.measure_training", "true"});
  const Outcome measured = run(1, {"inspect", kResults, "runs/measured/results.h5"});
  expect_parts(measured, {"M_A %  ETT\n"});
  EXPECT_TRUE(measured.line("small ").ends_with(" -    -")) << measured;
  EXPECT_EQ(measured.out.find("G_A"), std::string::npos) << measured;
}

TEST_F(Program, EvalTellsTheDispatchEntropyThatTrainTold) {
  const Words words = {"train",
                       "--config",
                       SWITCHYARD_CONFIGS "/clusters.cfg",
                       "--data.limit",
                       "320",
                       "--run.epochs",
                       "2",
                       "--train.batch",
                       "320",
                       "--train.microbatch",
                       "80"};
  const std::string entropy = run(2, words).line("dispatch entropy ");
  EXPECT_EQ(run(1, {"eval", "runs/clusters/checkpoint-00000002.h5"}).line("dispatch entropy "), entropy);
  expect_parts(run(1, {"inspect", "runs/clusters/results.h5", "runs/clusters/results.h5"}), {"dispatch entropy\n"});
}

TEST_F(Program, InspectRoundsAccuracies) {
  io::ResultsWriter::create(path("run.h5"), {{"config", ""}, {"test_accuracy", "0.6672500000000001"}}, {}).close();
  expect_parts(run(1, {"inspect", "run.h5"}), {"\ntest_accuracy 0.66725\n"});
}

TEST_F(Program, InspectSaysWhenARunEndedEarly) {
  io::ResultsWriter::create(path("early.h5"), {{"config", ""}, {"status", "running"}}, {}).close();
  expect_parts(run(1, {"inspect", "early.h5"}), {"early.h5: results, 0 logged steps, ended early\n"});
}

// The table's lines under its headings, of layers 0, 1, ...
std::vector<std::string> layer_rows(const Outcome& outcome, Index layers) {
  std::vector<std::string> rows;
  for (Index layer = 0; layer < layers; ++layer) rows.push_back(outcome.line(fmt::format("{:>5}  ", layer)));
  return rows;
}

class Routing : public Program {
 protected:
  Outcome inspect(const std::string& results, const char* locale = "C") {
    return Running({SWITCHYARD_PROGRAM, "inspect", results, "--routing"}, folder_.path(), {{"LC_ALL", locale}}).wait();
  }
};

TEST_F(Routing, IsRecordedByLayerAndExpert) {
  ASSERT_EQ(train(2, {"--ffn.router", "top_k", "--ffn.top_k", "2", "--ffn.every", "2", "--ffn.capacity_train", "1",
                      "--ffn.z_loss", "0.01", "--run.log_every", "2"})
                .code,
            0);
  const io::ResultsSummary summary = io::describe_results(path(kResults));
  EXPECT_EQ(summary.attributes.at("mixture_blocks"), "1");
  EXPECT_GT(summary.last_step->balance_loss, 0);
  EXPECT_GT(summary.last_step->z_loss, 0);
  EXPECT_EQ(summary.last_step->importance_loss, 0);
  EXPECT_EQ(summary.last_step->load_loss, 0);
  EXPECT_EQ(summary.last_step->consistency_loss, 0);
  const std::vector<io::RoutingRow> rows = io::read_routing(path(kResults));
  ASSERT_EQ(rows.size(), 6u) << "steps 2, 4, 6 and 8; 3, 6 and 9 are evaluated";
  for (const io::RoutingRow& row : rows) {
    ASSERT_EQ(row.load.size(), 4u);
    const float tokens = std::accumulate(row.load.begin(), row.load.end(), 0.0f);
    const float most = *std::max_element(row.load.begin(), row.load.end());
    EXPECT_EQ(tokens, 2 * 48 * 10);  // nine patches and a class token in each of 48 images
    EXPECT_FLOAT_EQ(row.max_over_mean[0], 4 * most / tokens);
    EXPECT_GT(row.load_cv[0], 0);
    EXPECT_LT(row.load_entropy[0], std::log(4.0f));
    EXPECT_GT(row.gate_entropy[0], 0);
    EXPECT_LE(row.gate_entropy[0], std::log(4.0f));
    EXPECT_EQ(row.dead_experts[0], 0);
    float dropped = 0;
    for (std::size_t expert = 0; expert < 4; ++expert) {
      EXPECT_LT(row.dropped[expert], row.load[expert]);
      EXPECT_GT(row.weight[expert], 0);
      EXPECT_LT(row.weight[expert], 1);
      dropped += row.dropped[expert];
    }
    EXPECT_GE(dropped, most - 240) << "the fullest expert's tokens beyond an even share";
  }
  inspect(kResults).line("    1  ");
}

TEST_F(Routing, IsShownInTheLocalesLetters) {
  ASSERT_EQ(train(2).code, 0);
  const Outcome ascii = inspect(kResults), unicode = inspect(kResults, "C.UTF-8");
  expect_parts(ascii, {"runs/small/results.h5: routing, mean over the last 9 logged steps, steps 1 to 9\n",
                       "share of tokens by expert, %", "CV", "max/mean", "entropy", "dead", "dropped",
                       "1.39 where even", "\n= an even share"});
  for (const std::string& row : layer_rows(ascii, 2))
    EXPECT_TRUE(testing::internal::RE::FullMatch(row, R"(([x.:=+*#@-] +[0-9]+ ){4} +[01]\.[0-9]+ +[1-4]\.[0-9]+)"
                                                      R"( +[01]\.[0-9]+ +[01]\.[0-9]+ +[0-9]+\.[0-9] +0\.00)"))
        << row << "\n"
        << ascii;
  expect_parts(unicode, {"\n▄ an even share"});
  EXPECT_EQ(layer_rows(unicode, 2).size(), 2u);
}

TEST_F(Routing, IsShownForManyExpertsAndForARandomRouter) {
  ASSERT_EQ(train(1, {"--run.name", "many", "--ffn.experts", "64", "--ffn.hidden", "4", "--run.log_every", "4"}).code,
            0);
  const Outcome many = inspect("runs/many/results.h5");
  expect_parts(many, {"mean over the last 5 logged steps, steps 3 to 9\n", "4.16 where even"});
  std::istringstream lines(many.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << many;

  ASSERT_EQ(train(1, {"--run.name", "random", "--ffn.router", "random"}).code, 0);
  const Outcome random = inspect("runs/random/results.h5");
  for (const std::string& row : layer_rows(random, 2))
    EXPECT_TRUE(testing::internal::RE::PartialMatch(row, " 4\\.00 +0\\.00 +- +75\\.0 +0\\.00$")) << row;
}

TEST_F(Routing, OfATreeIsItsLeavesSharesAndNodesEntropies) {
  ASSERT_EQ(train(2, {"--ffn.kind", "fff", "--ffn.hidden", "16", "--ffn.leaf", "4"}).code, 0);
  const Outcome tree = inspect(kResults);
  expect_parts(tree, {"runs/small/results.h5: routing, mean over the last 9 logged steps, steps 1 to 9\n",
                      "share of tokens by leaf", "nodes' entropy", "nodes above"});
  for (const std::string& row : layer_rows(tree, 2)) EXPECT_TRUE(row.ends_with("100.0")) << "untrained nodes: " << tree;
}

// Of 64 experts one starves from the start, whatever the gate learns in 60 steps.
TEST_F(Routing, IsWarnedOfOnceAndNotWhereItIsRandom) {
  const Words words{"--ffn.experts", "64",  "--ffn.hidden",       "4",    "--ffn.balance_loss", "0",
                    "--run.steps",   "110", "--checkpoint.every", "1000", "--run.eval_every",   "0"};
  const Outcome learned = train(1, words);
  const std::string warning = learned.line("warning: expert ");
  EXPECT_TRUE(testing::internal::RE::FullMatch(warning,
                                               "[0-9]+ of layer [01] has had 0\\.[01] % of tokens since step 1: "
                                               "try ffn.balance_loss or ffn.router = noisy_top_k"))
      << warning;
  EXPECT_EQ(learned.err, "");
  const Outcome random = train(1, words + Words{"--run.name", "random", "--ffn.router", "random"});
  EXPECT_EQ(random.code, 0) << random;
  EXPECT_EQ(random.out.find("warning"), std::string::npos) << random;
}

TEST_F(Mistakes, InspectRefusesRoutingWhereThereIsNone) {
  ASSERT_EQ(train(1, {"--ffn.kind", "dense"}).code, 0);
  expect_message(1, {"inspect", kResults, "--routing"}, kFailure, {kResults, "no mixture or tree in this run"});
  io::ResultsWriter::create(path("tree.h5"), {{"config", ""}, {"status", "running"}}, {0, 0, 1, 4}).close();
  expect_message(1, {"inspect", "tree.h5", "--routing"}, kFailure, {"tree.h5", "no rows of routing yet"});
  io::ResultsWriter::create(path("early.h5"), {{"config", ""}, {"status", "running"}}, {2, 4}).close();
  expect_message(1, {"inspect", "early.h5", "--routing"}, kFailure, {"early.h5", "no rows of routing yet"});
  expect_message(1, {"inspect", kCheckpoint, "--routing"}, kFailure,
                 {kCheckpoint, "is a checkpoint, not a results file"});
  expect_message(1, {"inspect", "early.h5", kResults, "--routing"}, kUsage, {"--routing takes one results file"});
}

TEST_F(Program, InspectAndEvalRefuseADamagedCheckpoint) {
  train(2);
  for (const auto& [file, percent] : {std::pair{"cut.h5", 60}, {"empty.h5", 0}}) {
    fs::copy_file(path(kCheckpoint), path(file));
    fs::resize_file(path(file), fs::file_size(path(file)) * static_cast<std::uintmax_t>(percent) / 100);
  }
  fs::copy_file(path(kCheckpoint), path("flipped.h5"));
  std::fstream(path("flipped.h5"), std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(fs::file_size(path("flipped.h5")) / 2))
      .write("damage", 6);
  for (const char* file : {"cut.h5", "empty.h5", "flipped.h5"})
    for (const char* command : {"inspect", "eval"}) {
      SCOPED_TRACE(fmt::format("{} {}", command, file));
      const Outcome outcome = run(1, {command, file});
      EXPECT_EQ(outcome.code, kFailure) << outcome;
      EXPECT_NE((outcome.out + outcome.err).find(file), std::string::npos) << outcome;
      EXPECT_EQ(outcome.out.find("verified\n"), std::string::npos) << outcome;
    }
}

TEST_F(Program, InspectCallsDamagedResultsDamaged) {
  io::ResultsWriter::create(path("whole.h5"), {{"config", ""}}, {}).close();
  std::ifstream whole(path("whole.h5"), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(whole), {}};
  for (const std::size_t at : {std::size_t{13}, std::size_t{40}, bytes.find("learning_rate")}) {
    std::string flipped = bytes;
    flipped.at(at) ^= 1;
    std::ofstream(path("run.h5"), std::ios::binary) << flipped;
    const Outcome outcome = run(1, {"inspect", "run.h5"}, 20);
    EXPECT_EQ(outcome.code, kFailure) << outcome;
    EXPECT_NE(outcome.err.find("run.h5: is damaged"), std::string::npos) << "byte " << at << "\n" << outcome;
  }
}

TEST_F(Program, BenchComparesStepsWithProducts) {
  expect_parts(run(2, {"bench", "step", "--config", "small.cfg", "--steps", "2"}), {"images/s", "GFLOP/s"});
  expect_parts(run(2, {"bench", "products", "--config", "small.cfg", "--steps", "1"}), {"A B^T", "of oneDNN's rate"});
}

class BadUse : public Mistakes, public testing::WithParamInterface<Mistake> {};

TEST_P(BadUse, IsExplained) { expect(GetParam()); }

INSTANTIATE_TEST_SUITE_P(
    Commands, BadUse,
    testing::Values(Mistake{"eval_of_nothing", {"eval"}, kUsage, {"eval", "checkpoint"}},
                    Mistake{"eval_of_no_file", {"eval", "none.h5"}, kFailure, {"none.h5", "no such file"}},
                    Mistake{
                        "eval_of_a_configuration", {"eval", "small.cfg"}, kFailure, {"small.cfg", "not an HDF5 file"}},
                    Mistake{"eval_of_two", {"eval", "a.h5", "b.h5"}, kUsage, {"\"b.h5\""}},
                    Mistake{"inspect_of_nothing", {"inspect"}, kUsage, {"inspect", "file"}, 1},
                    Mistake{"inspect_of_no_file", {"inspect", "none.h5"}, kFailure, {"none.h5", "no such file"}, 1},
                    Mistake{"inspect_unknown_option", {"inspect", "small.cfg", "--quux"}, kUsage, {"--quux"}, 1},
                    Mistake{"bench_of_nothing", {"bench"}, kUsage, {"bench step"}},
                    Mistake{"bench_of_something_else", {"bench", "stop"}, kUsage, {"bench step"}}),
    name_of);

}  // namespace
}  // namespace switchyard::test
