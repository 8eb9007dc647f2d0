// bench kernels: which kernels it times, and what it says of them.
#include <algorithm>
#include <fstream>
#include <regex>
#include <set>

#include "bench_table.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

// As kernels/api/operations.def and kernels/dispatch.cpp name them.
std::set<std::string> all_kernels() {
  std::set<std::string> names = {"count_not_finite"};  // which no step calls, so it is not profiled
  for (const auto& [source, pattern] :
       {std::pair{"/kernels/api/operations.def", R"(\nSWITCHYARD_(?:LIST_)?OPERATION\((\w+))"},
        std::pair{"/kernels/dispatch.cpp", R"re(Profiled profiled\(context, "(\w+)")re"}}) {
    std::ifstream file(std::string(SWITCHYARD_SOURCE) + source);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::regex named(pattern);
    for (std::sregex_iterator each(text.begin(), text.end(), named), end; each != end; ++each) names.insert((*each)[1]);
  }
  return names;
}

const Words kTree = {"--ffn.kind", "fff", "--ffn.depth", "2", "--ffn.leaf", "5"};
const Words kPatches = {"--data.kind",         "clusters",  "--model.kind",    "patch_cnn", "--ffn.hidden", "16",
                        "--ffn.router",        "patch_sum", "--train.dropout", "0",         "--data.flip",  "false",
                        "--data.crop_padding", "0"};

// Each model those that it uses, and among them all.
TEST_F(Program, BenchKernelsTimesEveryKernel) {
  std::set<std::string> timed;
  for (const auto& [model, own, not_its] : {std::tuple{Words{}, "column_sum", "tree_descent"},
                                            {kTree, "tree_forward", "dispatch"},
                                            {kTree + Words{"--model.kind", "mlp"}, "scale_leaves", "layernorm"},
                                            {kPatches, "patch_pool", "attention"}}) {
    const Outcome outcome =
        run(1, Words{"bench", "kernels", "--config", "small.cfg", "--steps", "1", "--output", "k.h5", "--overwrite"} +
                   model);
    ASSERT_EQ(outcome.code, 0) << outcome;
    expect_at_most_columns(outcome.out, 100);
    const Table table(path("k.h5"));
    const std::vector<std::string> names = table.texts(schema::kKernelsName);
    EXPECT_EQ(std::count(names.begin(), names.end(), std::string(own)), 1) << own;
    EXPECT_EQ(std::count(names.begin(), names.end(), std::string(not_its)), 0) << not_its;
    timed.insert(names.begin(), names.end());
    expect_positive(table.numbers(schema::kKernelsShare), names.size(), own);
  }
  ASSERT_GT(all_kernels().size(), 45u);
  EXPECT_EQ(timed, all_kernels()) << "a kernel has no row in `bench kernels`: app/*_cases.cpp";
}

TEST_F(Program, BenchKernelsSaysWhatItTimed) {
  const Outcome outcome = run(2, {"bench", "kernels", "--config", "small.cfg", "--steps", "1", "--output", "k.h5"});
  ASSERT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.line("output "), "k.h5");
  expect_at_most_columns(outcome.out, 100);
  EXPECT_FALSE(fs::exists(path("k.h5.tmp")));

  const Table table(path("k.h5"));
  const std::vector<std::string> names = table.texts(schema::kKernelsName);
  const std::vector<std::string> shapes = table.texts(schema::kKernelsShape);
  std::set<std::pair<std::string, std::string>> rows;
  for (std::size_t i = 0; i < names.size(); ++i) rows.insert({names[i], shapes.at(i)});
  // 2 samples of 10 tokens, of width 24; by 4 experts 5 tokens.
  for (const std::pair<const char*, const char*>& row : {std::pair{"gemm", "20 x 72 x 24, A B^T"},
                                                         {"attention", "2 x 10 x 3 x 8"},
                                                         {"attention", "2 x 10 x 3 x 8, p = 0.1"},
                                                         {"layernorm", "20 x 24"},
                                                         {"bias_activation_dropout", "5 x 20, p = 0.1"},
                                                         {"patchify", "2 x 12 x 12 x 3"}})
    EXPECT_EQ(rows.count({row.first, row.second}), 1u) << row.first << " " << row.second << "\n" << outcome;

  for (const auto& each : {schema::kKernelsSeconds, schema::kKernelsWork, schema::kKernelsRate, schema::kKernelsLimit,
                           schema::kKernelsShare})
    expect_positive(table.numbers(each), names.size(), each.path);
  const std::vector<double> seconds = table.numbers(schema::kKernelsSeconds),
                            work = table.numbers(schema::kKernelsWork), rate = table.numbers(schema::kKernelsRate);
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_NEAR(rate[i] * 1e9 * seconds[i], work[i], 1e-9 * work[i]) << names[i];
    // Read x (5, 24), written once in the sums of its 24 columns.
    if (names[i] == "column_sum") {
      EXPECT_EQ(work[i], 4.0 * (5 * 24 + 24));
    }
    if (names[i] == "fill_zero") {
      EXPECT_EQ(work[i], 4.0 * 20 * 24);
    }
    // Parameters and both moments read and written, gradients read.
    if (names[i] == "adam") {
      EXPECT_EQ(work[i], 4.0 * 7 * std::stod(shapes[i]));
    }
  }
  for (const std::string& unit : table.texts(schema::kKernelsUnit)) EXPECT_TRUE(unit == "GFLOP/s" || unit == "GB/s");

  EXPECT_EQ(table.attribute(schema::kFormat), schema::kBenchFormat);
  EXPECT_EQ(table.attribute("command"), "switchyard bench kernels --config small.cfg --steps 1 --output k.h5");
  EXPECT_EQ(table.attribute("ranks"), "2");
  EXPECT_NE(table.attribute("machine").find("cores"), std::string::npos);
  EXPECT_NE(table.attribute("versions").find("HDF5"), std::string::npos);
  EXPECT_NE(table.config().find("width = 24"), std::string::npos);
}

TEST_F(Program, BenchKernelsOfADenseModelLeavesExpertsOut) {
  const Outcome outcome = run(
      1, {"bench", "kernels", "--config", "small.cfg", "--steps", "1", "--ffn.kind", "dense", "--train.dropout", "0"});
  EXPECT_EQ(outcome.code, 0) << outcome;
  EXPECT_EQ(outcome.out.find("\ndispatch"), std::string::npos) << outcome;
  EXPECT_EQ(outcome.out.find("p = "), std::string::npos) << outcome;
  EXPECT_NE(outcome.out.find("no experts"), std::string::npos) << outcome;
  outcome.line("layernorm ");
}

}  // namespace
}  // namespace switchyard::test
