// bench step's profile, bench exchange and bench inference: what they print, the files they write, and what all refuse.
#include <map>
#include <regex>
#include <sstream>

#include "bench_table.hpp"
#include "io/results.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

TEST_F(Program, BenchExchangeCountsWhatTravels) {
  const Outcome outcome = run(
      2, {"bench", "exchange", "--config", "small.cfg", "--parallel.experts", "2", "--steps", "2", "--output", "e.h5"});
  ASSERT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.err, "");
  expect_at_most_columns(outcome.out, 100);
  const Table table(path("e.h5"));
  // A microbatch is 20 tokens.
  EXPECT_EQ(table.numbers(schema::kExchangeTokens), (std::vector<double>{16, 64, 256, 16, 64, 256}));
  const std::vector<std::string> loads = table.texts(schema::kExchangeLoad);
  EXPECT_EQ(loads.front(), "even");
  EXPECT_EQ(loads.back(), "half to one");
  // Even: 8 rows of 24 floats and their numbers there, 8 rows back. Half to one of 4 experts: 8, 3, 3 and 2 of 16
  // tokens, so that rank 1 sends 11 rows there and 5 back.
  const std::vector<double> bytes = table.numbers(schema::kExchangeBytes);
  ASSERT_EQ(bytes.size(), 6u);
  EXPECT_EQ(bytes[0], 8 * (96 + 4) + 8 * 96);
  EXPECT_EQ(bytes[3], 11 * (96 + 4) + 5 * 96);
  for (const auto& each : {schema::kExchangeSeconds, schema::kExchangeBare, schema::kExchangeCounts,
                           schema::kExchangeKernels, schema::kExchangeLeast, schema::kExchangeBareLeast})
    expect_positive(table.numbers(each), 6, each.path);
  const std::vector<double> seconds = table.numbers(schema::kExchangeSeconds),
                            least = table.numbers(schema::kExchangeLeast);
  for (std::size_t i = 0; i < seconds.size(); ++i) EXPECT_LE(least[i], seconds[i]);
  EXPECT_EQ(table.attribute("experts_over"), "2");
}

TEST_F(Program, BenchExchangeWithReplicas) {
  const Outcome outcome =
      run(4, {"bench", "exchange", "--config", "small.cfg", "--parallel.experts", "2", "--steps", "1"});
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_NE(outcome.out.find("4 ranks, experts over 2 ranks"), std::string::npos) << outcome;
}

TEST_F(Program, BenchInferenceOfAFlatModel) {
  const Outcome outcome =
      run(1, {"bench", "inference", "--model.kind", "mlp", "--ffn.hidden", "32", "--data.kind", "synthetic", "--leaves",
              "8,1", "--batches", "1,40", "--steps", "2", "--parallel.threads", "2", "--output", "i.h5"});
  ASSERT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.err, "");
  expect_at_most_columns(outcome.out, 100);
  const Table table(path("i.h5"));
  // Dense, then a mixture and a tree with each leaf; both batches; layer and model; both numbers of threads.
  constexpr std::size_t kRows = 5 * 2 * 2 * 2;
  const std::vector<std::string> networks = table.texts(schema::kInferenceNetwork),
                                 parts = table.texts(schema::kInferencePart);
  ASSERT_EQ(networks.size(), kRows);
  EXPECT_EQ((std::vector<std::string>{networks.begin(), networks.begin() + 6}),
            (std::vector<std::string>{"dense", "moe top-1", "fff", "moe top-1", "fff", "dense"}));
  EXPECT_EQ(parts.front(), "layer");
  EXPECT_EQ(parts.back(), "model");
  const std::vector<double> leaves = table.numbers(schema::kInferenceLeaf),
                            threads = table.numbers(schema::kInferenceThreads),
                            batches = table.numbers(schema::kInferenceBatch),
                            seconds = table.numbers(schema::kInferenceSeconds),
                            rates = table.numbers(schema::kInferenceRate),
                            least = table.numbers(schema::kInferenceLeast),
                            weights = table.numbers(schema::kInferenceWeights),
                            activations = table.numbers(schema::kInferenceActivations),
                            speed_up = table.numbers(schema::kInferenceSpeedUp);
  EXPECT_EQ((std::vector<double>{leaves.begin(), leaves.begin() + 5}), (std::vector<double>{0, 8, 8, 1, 1}));
  EXPECT_EQ(threads.front(), 1);
  EXPECT_EQ(threads.back(), 2);
  for (const auto& each : {schema::kInferenceSeconds, schema::kInferenceSpeedUp, schema::kInferenceSpeedUpLeast})
    expect_positive(table.numbers(each), kRows, each.path);
  for (std::size_t i = 0; i < kRows; ++i) {
    EXPECT_NEAR(rates[i] * seconds[i], batches[i], 1e-9 * batches[i]);
    EXPECT_LE(least[i], seconds[i]);
    if (networks[i] == "dense") {
      EXPECT_EQ(speed_up[i], 1);
    }
  }
  // The layer of four leaves of 8 units under 3 nodes, at batch 40: nothing is packed, and nothing is held but y.
  EXPECT_EQ(networks[7], "fff");
  EXPECT_EQ(weights[7], 4.0 * (3 * (784 + 1) + 4 * (8 * (784 + 1) + (8 + 1) * 10)));
  EXPECT_EQ(activations[7], 4.0 * 40 * 10);
}

TEST_F(Program, BenchInferenceOfATransformer) {
  const Outcome outcome = run(1, {"bench", "inference", "--config", "small.cfg", "--ffn.hidden", "12", "--ffn.top_k",
                                  "2", "--ffn.router", "top_k", "--leaves", "6", "--batches", "3", "--steps", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome;
  for (const char* part : {"Layer 24 -> 12 -> 24, 1 thread", "Whole model, 1 thread", "moe top-1", "moe top-2", "fff"})
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << "\n" << outcome;
}

// 16 leaves of 8: told by the width of all together, or by the depth. Experts over ranks are nothing to it.
TEST_F(Program, BenchInferenceOfATreeIsAsWideAsItsLeavesTogether) {
  for (const Words& tree : {Words{"--ffn.hidden", "128"}, {"--ffn.depth", "4"}}) {
    const Outcome outcome =
        run(1, Words{"bench", "inference", "--model.kind", "mlp", "--ffn.kind", "fff", "--ffn.leaf", "8"} + tree +
                   Words{"--parallel.experts", "2", "--leaves", "8", "--batches", "1", "--steps", "1",
                         "--parallel.threads", "1"});
    ASSERT_EQ(outcome.code, 0) << outcome;
    EXPECT_NE(outcome.out.find("Layer 784 -> 128 -> 10, 1 thread"), std::string::npos) << outcome;
  }
}

TEST_F(Program, BenchReplacesItsOwnFilesOnlyAndOnlyWhenTold) {
  const Words command = {"bench", "exchange", "--config", "small.cfg", "--parallel.experts",
                         "2",     "--steps",  "1",        "--output",  "e.h5"};
  ASSERT_EQ(run(2, command).code, 0);
  const Outcome refused = run(2, command);
  EXPECT_EQ(refused.code, kUsage) << refused;
  EXPECT_EQ(refused.out, "") << "it is refused before anything is measured";
  EXPECT_NE(refused.err.find("e.h5 is already there; replace it (--overwrite)"), std::string::npos) << refused;
  const Outcome replaced = run(2, command + Words{"--overwrite"});
  EXPECT_EQ(replaced.code, 0) << replaced;
  EXPECT_EQ(Table(path("e.h5")).numbers(schema::kExchangeTokens).size(), 6u);

  io::ResultsWriter::create(path("results.h5"), {{"config", ""}}, {}).close();
  folder_.write("text.h5", "precious");
  for (const auto& [file, what] : {std::pair{"results.h5", "a results file"}, {"text.h5", "not an HDF5 file"}}) {
    const auto size = fs::file_size(path(file));
    const Outcome kept = run(2, {"bench", "kernels", "--config", "small.cfg", "--output", file, "--overwrite"});
    EXPECT_EQ(kept.code, kUsage) << kept;
    EXPECT_NE(kept.err.find(what), std::string::npos) << kept;
    EXPECT_EQ(fs::file_size(path(file)), size);
  }
}

// Milliseconds of a step by row of the profile, of which each ends in its total and its share.
std::map<std::string, double> profile_rows(const std::string& out) {
  std::map<std::string, double> rows;
  const std::regex row(R"(^(\w[\w ]*?)  .* (\d+\.\d+) +\d+\.\d %$)");
  std::istringstream lines(out);
  for (std::string line; std::getline(lines, line);)
    if (std::smatch parts; std::regex_match(line, parts, row)) rows[parts[1]] = std::stod(parts[2]);
  return rows;
}

// The step's own clock is another one, so phases that leave a gap or overlap would show, as would kernels that nest.
TEST_F(Program, ProfileAddsUpToTheStep) {
  const Outcome outcome = run(2, {"bench", "step", "--config", "small.cfg", "--steps", "1", "--profile"});
  ASSERT_EQ(outcome.code, 0) << outcome;
  std::map<std::string, double> rows = profile_rows(outcome.out);
  for (const char* name : {"gemm", "pack_b", "attention_backward", "adam", "all"})
    EXPECT_TRUE(rows.contains(name)) << name << "\n" << outcome;
  std::smatch step;
  ASSERT_TRUE(std::regex_search(outcome.out, step, std::regex(R"(training step +(\d+\.\d+) )"))) << outcome;
  const double milliseconds = 1e3 * std::stod(step[1]);
  EXPECT_NEAR(rows["all"], milliseconds, 0.2 + 0.05 * milliseconds) << outcome;
  EXPECT_GE(rows["outside kernels"], 0) << outcome;
}

class BadBench : public Mistakes, public testing::WithParamInterface<Mistake> {};

TEST_P(BadBench, IsExplained) {
  expect(GetParam());
  for (const auto& entry : fs::directory_iterator(folder_.path())) EXPECT_NE(entry.path().extension(), ".tmp");
}

INSTANTIATE_TEST_SUITE_P(
    Commands, BadBench,
    testing::Values(
        Mistake{"no_steps", {"bench", "kernels", "--steps", "0"}, kUsage, {"--steps = 0", "at least 1"}},
        Mistake{"steps_in_words", {"bench", "step", "--steps", "ten"}, kUsage, {"--steps = ten", "whole number"}},
        Mistake{"steps_left_out", {"bench", "step", "--steps"}, kUsage, {"--steps:", "whole number of at least 1"}},
        Mistake{"experts_on_one_rank",
                {"bench", "step", "--config", "small.cfg", "--parallel.experts", "2"},
                kUsage,
                {"parallel.experts = 2 on 1 rank", "mpirun -n 2", "set parallel.experts to 1"},
                1},
        Mistake{"exchange_of_no_model",
                {"bench", "exchange", "--parallel.experts", "1"},
                kUsage,
                {"without --config", "--config configs/"}},
        Mistake{"kernels_into_no_folder",
                {"bench", "kernels", "--config", "small.cfg", "--output", "none/k.h5"},
                kUsage,
                {"none/k.h5", "No such file", "name a file in a folder"}},
        Mistake{"kernels_into_a_folder",
                {"bench", "kernels", "--config", "small.cfg", "--output", "."},
                kUsage,
                {". is a folder", "name a file"}},
        Mistake{"kernels_into_a_device",
                {"bench", "kernels", "--output", "/dev/null", "--overwrite"},
                kUsage,
                {"/dev/null is not a file of its own"}},
        Mistake{"overwriting_nothing", {"bench", "kernels", "--overwrite"}, kUsage, {"without --output"}},
        Mistake{"profile_of_kernels", {"bench", "kernels", "--profile"}, kUsage, {"--profile", "bench step"}},
        Mistake{"products_of_a_bad_model",
                {"bench", "products", "--config", "small.cfg", "--model.patch", "5"},
                kUsage,
                {"model.patch = 5"}},
        Mistake{"steps_into_a_file", {"bench", "step", "--output", "s.h5"}, kUsage, {"bench step writes no file"}},
        Mistake{"exchange_on_one_rank",
                {"bench", "exchange", "--config", "small.cfg"},
                kUsage,
                {"nothing travels", "mpirun -n 2", "--parallel.experts 2"},
                1},
        Mistake{"exchange_with_all_experts_everywhere",
                {"bench", "exchange", "--config", "small.cfg"},
                kUsage,
                {"on 2 ranks with parallel.experts = 1", "nothing travels", "--parallel.experts 2"}},
        Mistake{"exchange_without_experts",
                {"bench", "exchange", "--config", "small.cfg", "--ffn.kind", "dense"},
                kUsage,
                {"ffn.kind = dense", "moe"}},
        Mistake{"inference_on_two_ranks",
                {"bench", "inference", "--config", "small.cfg"},
                kUsage,
                {"2 ranks", "leave mpirun out"}},
        Mistake{"inference_in_leaves_that_do_not_halve",
                {"bench", "inference", "--ffn.hidden", "96", "--leaves", "24,5"},
                kUsage,
                {"--leaves", "96 hidden units", "leaves of 5"},
                1},
        Mistake{"inference_without_leaves_of_its_own",
                {"bench", "inference", "--ffn.hidden", "96"},
                kUsage,
                {"96 hidden units", "--leaves 48"},
                1},
        Mistake{"inference_of_a_single_unit",
                {"bench", "inference", "--ffn.hidden", "1"},
                kUsage,
                {"a network of 1 hidden unit has", "--ffn.hidden 2"},
                1},
        Mistake{"inference_of_convolutions",
                {"bench", "inference", "--model.kind", "patch_cnn", "--data.kind", "clusters", "--train.dropout", "0"},
                kUsage,
                {"model.kind = patch_cnn", "vit or mlp"},
                1},
        Mistake{"inference_of_leaves_told_twice",
                {"bench", "inference", "--leaves", "8,4,8"},
                kUsage,
                {"--leaves = 8,4,8", "8 is there twice"},
                1},
        Mistake{"inference_of_no_batch",
                {"bench", "inference", "--batches", "1,,4"},
                kUsage,
                {"--batches = 1,,4", "whole numbers"},
                1},
        Mistake{"inference_of_a_batch_beyond_memory",
                {"bench", "inference", "--batches", "1152921504606846976"},
                kUsage,
                {"--batches = 1152921504606846976", "from 1 to 1048576"},
                1},
        Mistake{"steps_in_leaves", {"bench", "step", "--leaves", "8"}, kUsage, {"--leaves", "bench inference"}}),
    name_of);

}  // namespace
}  // namespace switchyard::test
