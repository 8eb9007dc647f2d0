// bench on a GPU, which is the emulated one: every kernel is called with device memory, and tables say what they were
// measured against. Times mean nothing here.
#include <fstream>
#include <regex>
#include <set>

#include "bench_table.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

class BenchOnGpu : public Program {
 protected:
  Outcome bench(const Words& words, int ranks = 1) {
    const Words gpu = {"--compute.device", "cuda", "--steps", "1"};
    return Running(mpirun(ranks) + Words{SWITCHYARD_EMULATED, "bench"} + words + gpu, folder_.path()).wait();
  }
};

TEST_F(BenchOnGpu, KernelsAreAllTimedAgainstALargeProductOrACopy) {
  const Words tree = {"--ffn.kind", "fff", "--ffn.depth", "2", "--ffn.leaf", "5"};
  const Words patches = {"--data.kind",         "clusters",  "--model.kind",    "patch_cnn", "--ffn.hidden", "16",
                         "--ffn.router",        "patch_sum", "--train.dropout", "0",         "--data.flip",  "false",
                         "--data.crop_padding", "0"};
  std::set<std::string> timed;
  for (const auto& [model, own] : {std::pair{Words{"--compute.dtype", "bf16"}, "pack_b"},
                                   {tree, "tree_forward"},
                                   {tree + Words{"--model.kind", "mlp", "--compute.dtype", "bf16"}, "scale_leaves"},
                                   {patches, "patch_pool"}}) {
    SCOPED_TRACE(own);
    const Outcome outcome = bench(Words{"kernels", "--config", "small.cfg", "--output", "k.h5", "--overwrite"} + model);
    ASSERT_EQ(outcome.code, 0) << outcome;
    EXPECT_EQ(outcome.err, "");
    expect_at_most_columns(outcome.out, 100);
    EXPECT_EQ(outcome.out.find("oneDNN"), std::string::npos) << outcome;
    EXPECT_NE(outcome.out.find("emulated GPU"), std::string::npos) << outcome;

    const Table table(path("k.h5"));
    EXPECT_NE(table.attribute("machine").find("; emulated GPU"), std::string::npos);
    const std::vector<std::string> names = table.texts(schema::kKernelsName);
    EXPECT_GT(std::count(names.begin(), names.end(), std::string(own)), 0);
    timed.insert(names.begin(), names.end());
    expect_positive(table.numbers(schema::kKernelsShare), names.size(), own);
    const std::vector<std::string> limits = table.texts(schema::kKernelsLimitedBy);
    for (std::size_t i = 0; i < names.size(); ++i) {
      const bool multiplies = std::set<std::string>{"gemm",         "attention",    "attention_backward",
                                                    "tree_descent", "leaf_forward", "tree_forward"}
                                  .count(names[i]) == 1;
      EXPECT_EQ(limits[i], multiplies ? "large product" : "copy") << names[i];
    }
  }
  std::ifstream file(std::string(SWITCHYARD_SOURCE) + "/kernels/api/operations.def");
  const std::string operations{std::istreambuf_iterator<char>(file), {}};
  const std::regex named(R"(\nSWITCHYARD_(?:LIST_)?OPERATION\((\w+))");
  for (std::sregex_iterator each(operations.begin(), operations.end(), named), end; each != end; ++each)
    EXPECT_EQ(timed.count((*each)[1]), 1u) << (*each)[1];
}

// bf16: what kernels hand to products, and products to kernels, is rounded, rows padded to a multiple of 8 elements,
// and counts as such.
TEST_F(BenchOnGpu, KernelsMoveTheBytesThatTrainingMoves) {
  std::map<std::string, double> bytes;
  for (const char* dtype : {"fp32", "bf16"}) {
    const Outcome outcome = bench({"kernels", "--config", "small.cfg", "--output", "k.h5", "--overwrite",
                                   "--train.dropout", "0", "--compute.dtype", dtype});
    ASSERT_EQ(outcome.code, 0) << outcome;
    const Table table(path("k.h5"));
    const std::vector<std::string> names = table.texts(schema::kKernelsName);
    const std::vector<std::string> shapes = table.texts(schema::kKernelsShape);
    const std::vector<double> work = table.numbers(schema::kKernelsWork);
    for (std::size_t i = 0; i < names.size(); ++i)
      bytes[std::string(dtype) + " " + names[i] + " " + shapes[i]] = work[i];
  }
  // 20 tokens of width 24, gamma, beta, means and deviations, and slots; 5 of an expert, 20 hidden units, their bias.
  const double of_norm = 4.0 * (20 * 24 + 2 * 24 + 2 * 20);
  EXPECT_EQ(bytes["fp32 layernorm 20 x 24"], of_norm + 4.0 * 20 * 24);
  EXPECT_EQ(bytes["bf16 layernorm 20 x 24"], of_norm + 2.0 * 20 * 24);
  EXPECT_EQ(bytes["bf16 layernorm 20 x 24, to slots"], of_norm + 2.0 * 20 * 24 + 4.0 * 20);
  EXPECT_EQ(bytes["bf16 bias_activation_dropout 5 x 20"], 4.0 * 20 + 2.0 * 2 * 5 * 24);
  EXPECT_EQ(bytes.count("fp32 pack_b 20 x 24, B^T"), 0u) << "aligned fp32 weights are read as they are";
  EXPECT_EQ(bytes["bf16 pack_b 20 x 24, B^T"], 4.0 * 20 * 24 + 2.0 * 20 * 24);
}

TEST_F(BenchOnGpu, ProductsAreSetAgainstALargeOne) {
  for (const char* dtype : {"fp32", "bf16"}) {
    const Outcome outcome = bench({"products", "--config", "small.cfg", "--compute.dtype", dtype});
    ASSERT_EQ(outcome.code, 0) << outcome;
    EXPECT_TRUE(std::regex_search(outcome.out, std::regex(R"(\n +20 +72 +24  A B\^T +[\d.]+ +[\d.]+ +[\d.]+\n)")))
        << outcome;
    EXPECT_TRUE(
        std::regex_search(outcome.out, std::regex(R"(\nall of a microbatch: \d\.\d\d of the large product's rate\n)")))
        << outcome;
  }
}

TEST_F(BenchOnGpu, StepTellsItsShareOfALargeProduct) {
  const Outcome outcome = bench({"step", "--config", "small.cfg", "--train.batch", "4"}, 2);
  ASSERT_EQ(outcome.code, 0) << outcome;
  EXPECT_NE(outcome.line("large product ").find(" x "), std::string::npos);
  outcome.line("share  ");
  outcome.line("share of that ");
}

TEST_F(BenchOnGpu, InferenceIsTimedOnceOnTheGpu) {
  const Outcome flat = bench({"inference", "--model.kind", "mlp", "--ffn.hidden", "16", "--data.kind", "synthetic",
                              "--leaves", "4", "--batches", "1,20", "--output", "i.h5"});
  ASSERT_EQ(flat.code, 0) << flat;
  EXPECT_NE(flat.out.find("Layer 784 -> 16 -> 10, emulated GPU"), std::string::npos) << flat;
  // Dense, mixture and tree; both batches; layer and model.
  const Table table(path("i.h5"));
  expect_positive(table.numbers(schema::kInferenceSeconds), 3 * 2 * 2, "seconds");
  const Outcome transformer = bench({"inference", "--config", "small.cfg", "--ffn.hidden", "12", "--leaves", "6",
                                     "--batches", "3", "--compute.dtype", "bf16"});
  EXPECT_EQ(transformer.code, 0) << transformer;
}

TEST_F(BenchOnGpu, ExchangeGoesByWayOfHostMemoryWhereRanksShareAGpu) {
  const Outcome outcome = bench({"exchange", "--config", "small.cfg", "--parallel.experts", "2", "--parallel.exchange",
                                 "host", "--output", "e.h5"},
                                2);
  ASSERT_EQ(outcome.code, 0) << outcome;
  EXPECT_NE(outcome.out.find("emulated GPU, sm_00; MPI_Alltoallv"), std::string::npos) << outcome;
  const Table table(path("e.h5"));
  EXPECT_EQ(table.numbers(schema::kExchangeTokens), (std::vector<double>{16, 64, 256, 16, 64, 256}));
  for (const auto& each : {schema::kExchangeSeconds, schema::kExchangeBare, schema::kExchangeKernels})
    expect_positive(table.numbers(each), 6, each.path);
}

// Rows of 20 elements, rounded, are padded to 24; the numbers of tokens travel with them.
TEST_F(BenchOnGpu, ExchangeSendsTheRowsThatTrainingSends) {
  const auto bytes_of_16_tokens = [&](const char* dtype) {
    const Outcome outcome =
        bench({"exchange", "--config", "small.cfg", "--model.width", "20", "--model.heads", "2", "--parallel.experts",
               "2", "--parallel.exchange", "host", "--compute.dtype", dtype, "--output", "e.h5", "--overwrite"},
              2);
    EXPECT_EQ(outcome.code, 0) << outcome;
    return Table(path("e.h5")).numbers(schema::kExchangeBytes).at(0);
  };
  EXPECT_EQ(bytes_of_16_tokens("fp32"), 8 * (20 * 4 + 4) + 8 * 20 * 4);
  EXPECT_EQ(bytes_of_16_tokens("bf16"), 8 * (24 * 2 + 4) + 8 * 24 * 2);
}

}  // namespace
}  // namespace switchyard::test
