// What a trainer does besides keeping the promise: it learns, stops where numbers are not finite, and allocates nothing
// once it runs.
#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <new>

#include "train/checkpoint_arrays.hpp"
#include "train/small_run.hpp"

namespace {
constexpr std::size_t kLargeBlock =
    2048;  // bytes: below the small model's activations, above strings and small vectors
std::atomic<int> num_large_blocks{0};
}  // namespace

// Not inlined: the compiler would otherwise see free() called on what new gave.
__attribute__((noinline)) void* operator new(std::size_t bytes) {
  if (bytes >= kLargeBlock) ++num_large_blocks;
  if (void* pointer = std::malloc(bytes)) return pointer;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* pointer) noexcept { std::free(pointer); }
__attribute__((noinline)) void operator delete(void* pointer, std::size_t) noexcept { std::free(pointer); }

// What kernels::allocate() calls.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  ++num_large_blocks;
  void* pointer = nullptr;
  return posix_memalign(&pointer, alignment, bytes) == 0 ? pointer : nullptr;
}

namespace switchyard::testing {
namespace {

TEST(Trainer, CountsStepsAndEpochs) {
  Config config = small_config();
  SmallRun run = run_on_all_ranks(config);
  EXPECT_EQ(run->steps_per_epoch(), 2);
  EXPECT_EQ(run->total_steps(), 8);
  const std::vector<StepMetrics> metrics = run.train(3);
  EXPECT_EQ(run->step(), 3);
  EXPECT_EQ(metrics[0].step, 1);
  EXPECT_EQ(metrics[2].epoch, 1.5);
  EXPECT_EQ(metrics[0].learning_rate, config.train.lr / 2);  // warm-up of two steps
  config.run.steps = 5;
  EXPECT_EQ(run_on_all_ranks(config)->total_steps(), 5);
}

TEST(Trainer, NeedsTrainingSamplesToTrainAlone) {
  Config config = small_config();
  config.train.batch = 102;
  const Dataset data = dataset_of(config);
  const std::string message = message_of([&] { require_a_batch(config, data); });
  EXPECT_TRUE(contains(message, "train.batch = 102 is more than the 100 training samples")) << message;
}

TEST(Trainer, RefusesCropsBeyondTheImage) {
  Config config = small_config();
  config.data.crop_padding = 8;
  EXPECT_EQ(message_of([&] { run_alone(config); }), "");
  config.data.crop_padding = 9;
  const std::string message = message_of([&] { run_alone(config); });
  EXPECT_TRUE(contains(message, "data.crop_padding = 9") && contains(message, "8x8") && contains(message, "at most 8"))
      << message;
}

TEST(Trainer, MeasuresTheSplitsThatAreAskedFor) {
  Config config = small_config();
  const Measures plain = run_on_all_ranks(config)->measure();
  EXPECT_FALSE(plain.validation || plain.training);
  config.data.validation = 0.1;
  config.run.measure_training = true;
  const Measures all = run_on_all_ranks(config)->measure();
  ASSERT_TRUE(all.validation && all.training);
  EXPECT_EQ(all.test.loss, plain.test.loss);
  EXPECT_NE(all.validation->loss, all.training->loss);
  config.data.flip = false;
  config.data.crop_padding = 0;
  EXPECT_EQ(run_on_all_ranks(config)->measure().training->loss, all.training->loss) << "without augmentation";
}

// Every rank may end it at the same place; then nothing of it is left.
TEST(Trainer, EvaluationCanBeInterrupted) {
  Config config = small_config();
  config.run.measure_training = true;
  SmallRun run = run_on_all_ranks(config);
  int num_calls = 0;
  const Measures whole = run->measure([&] { ++num_calls; });
  std::vector<int> calls(static_cast<std::size_t>(world_size()));
  all_gather(*world_communicator(), "test", &num_calls, sizeof(num_calls), calls.data());
  EXPECT_EQ(calls, std::vector<int>(calls.size(), num_calls));
  EXPECT_GE(num_calls, 3) << "more often than once a split";
  for (int last = 1; last <= num_calls; ++last) {
    int left = last;
    EXPECT_TRUE(contains(message_of([&] {
                           run->measure([&] {
                             if (--left == 0) fail("interrupted");
                           });
                         }),
                         "interrupted"));
  }
  const Measures again = run->measure();
  EXPECT_EQ(again.test.loss, whole.test.loss);
  EXPECT_EQ(again.training->loss, whole.training->loss);
}

TEST(Trainer, CountsTheTokensOfEachExpert) {
  const Config config = config_of({"", kind_named("switch").set});
  const StepMetrics metrics = run_on_all_ranks(config)->train_step();
  ASSERT_EQ(metrics.routing.tokens.size(), 8u);  // (layers, experts)
  for (std::size_t layer = 0; layer < 2; ++layer) {
    float tokens = 0;
    for (std::size_t expert = 0; expert < 4; ++expert) tokens += metrics.routing.tokens[layer * 4 + expert];
    EXPECT_EQ(tokens, 48 * 5);
  }
  EXPECT_GT(metrics.auxiliary.balance, 0);
  EXPECT_TRUE(run_on_all_ranks(small_config())->train_step().routing.tokens.empty());
}

// A second pass in which nothing is drawn does as the first: the loss is that of one pass, and THOR's gradient twice
// its, AdaMix's the same.
TEST(Trainer, TwoPassesCountTwice) {
  Config config = config_of(kind_named("hash"));
  config.train.dropout = config.train.clip = 0;
  const StepMetrics once = run_on_all_ranks(config)->train_step();
  config.ffn.consistency = 3;
  for (const auto& [kind, factor] : {std::pair{"thor", 2}, {"adamix", 1}}) {
    SCOPED_TRACE(kind);
    config.ffn.consistency_kind = kind;
    const StepMetrics twice = run_on_all_ranks(config)->train_step();
    EXPECT_NEAR(twice.loss, once.loss, 1e-6);
    EXPECT_NEAR(twice.accuracy, once.accuracy, 1e-4);
    EXPECT_NEAR(twice.gradient_norm, factor * once.gradient_norm, 1e-5);
    EXPECT_EQ(twice.auxiliary.consistency, 0);
    for (std::size_t i = 0; i < once.routing.tokens.size(); ++i)
      EXPECT_EQ(twice.routing.tokens[i], 2 * once.routing.tokens[i]);
  }
}

TEST(Trainer, LogsTheConsistencyLossWeighted) {
  Config config = config_of(kind_named("random twice, thor"));
  const StepMetrics one = run_on_all_ranks(config)->train_step();
  EXPECT_GT(one.auxiliary.consistency, 0);
  config.ffn.consistency = 4;
  const StepMetrics four = run_on_all_ranks(config)->train_step();
  EXPECT_NEAR(four.auxiliary.consistency, 4 * one.auxiliary.consistency, 1e-5 * four.auxiliary.consistency);
  EXPECT_EQ(four.loss, one.loss);
  EXPECT_EQ(run_on_all_ranks(config_of(kind_named("random")))->train_step().auxiliary.consistency, 0);
}

TEST(Trainer, LibraryReductionGivesNearlyTheSame) {
  Config config = config_of(kind_named("switch"));
  const StepMetrics tree = run_on_all_ranks(config).train(2).back();
  config.parallel.reduction = "library";
  config.parallel.experts = expert_parallel_sizes(config, world_size()).back();
  const StepMetrics library = run_on_all_ranks(config).train(2).back();
  EXPECT_NEAR(library.loss, tree.loss, 1e-4);
  EXPECT_NEAR(library.gradient_norm, tree.gradient_norm, 1e-3 * tree.gradient_norm);
}

TEST(Trainer, LibraryReductionRunsOnAnyDivisorOfTheMicrobatches) {
  // Three ranks would need a tree of three; here each rank that there is works on 3 of 3 W microbatches.
  Config config = small_config();
  config.parallel.reduction = "library";
  config.train.batch = 6 * world_size();
  EXPECT_TRUE(std::isfinite(run_on_all_ranks(config).train(2).back().loss));
}

TEST(Trainer, ClipsTheGlobalNorm) {
  // SGD without momentum moves by lr * clip at most, and by exactly that where the norm is clipped.
  Config config = small_config();
  config.train.optimizer = "sgd";
  config.train.momentum = config.train.weight_decay = 0;
  config.train.warmup_steps = 0;
  config.train.schedule = "constant";
  config.train.lr = 1;
  config.train.clip = 0.01;
  SmallRun run = run_on_all_ranks(config);
  const Index size = run->parameters().size();
  const float* values = run->parameters().value(0);
  const std::vector<float> before(values, values + size);
  EXPECT_GT(run->train_step().gradient_norm, 0.1);
  double moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i) moved += std::pow(double{values[i]} - double{before[i]}, 2);
  EXPECT_NEAR(std::sqrt(moved), 0.01, 1e-5);
}

TEST(Trainer, StopsWhereTheLossIsNotFinite) {
  for (const Kind& kind : {kind_named("dense"), kind_named("switch")}) {
    SCOPED_TRACE(kind.name);
    Config config = config_of(kind);
    config.train.optimizer = "sgd";
    config.train.warmup_steps = 0;
    config.train.clip = 0;
    config.train.lr = 1e30;
    SmallRun run = run_on_all_ranks(config);
    run.train(1);
    const std::string digest = run->digest();
    try {
      run.train(1);
      ADD_FAILURE() << "a loss of NaN went unnoticed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kDiverged);
      EXPECT_TRUE(contains(error.what(), "step 2: ")) << error.what();
      EXPECT_TRUE(contains(error.what(), "the first layer whose output is not finite is ")) << error.what();
    }
    EXPECT_EQ(run->step(), 1);
    EXPECT_EQ(run->digest(), digest);
  }
}

// A checkpoint as `run` would write it now, with one value of a parameter not a number.
void save_with_nan(SmallRun& run, const std::string& parameter, const std::filesystem::path& path) {
  run->save(*make_local_communicator(), path);
  CheckpointArrays arrays(path);
  arrays.values("parameters/" + parameter).back() = std::numeric_limits<float>::quiet_NaN();
  arrays.save(path);
}

TEST(Trainer, NamesTheLayerThatIsNotFinite) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("switchyard-nan-" + std::to_string(getpid()) + ".h5");
  const std::pair<std::string, std::string> places[] = {
      {"embedding.bias", "embedding"},
      {"blocks.0.attention.output.bias", "blocks.0.attention"},
      {"blocks.1.experts.b2", "blocks.1.ffn"},
      {"blocks.1.gate.weight", "blocks.1.ffn"},
      {"head.output.bias", "head"},
  };
  const Config config = config_of(kind_named("switch"));
  for (const auto& [parameter, layer] : places) {
    SmallRun source = run_alone(config);
    source.train(1);
    save_with_nan(source, parameter, path);
    Config layout = config;
    layout.parallel.experts = expert_parallel_sizes(config, world_size()).back();
    SmallRun run = run_on_all_ranks(layout);
    run->load(*make_local_communicator(), path);
    const std::string message = message_of([&] { run.train(1); });
    EXPECT_TRUE(contains(message, "step 2: the loss is ")) << parameter << ": " << message;
    EXPECT_TRUE(contains(message, "the first layer whose output is not finite is " + layer + ".")) << message;
  }
  std::filesystem::remove(path);
}

// Weights, and averages of experts, are kept packed from one use to the next: not beyond a step that changes them.
TEST(Trainer, EvaluatesTheWeightsThatItHasNow) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("switchyard-now-" + std::to_string(getpid()) + ".h5");
  for (const Kind& kind : all_kinds()) {
    SCOPED_TRACE(kind.name);
    Config config = config_of(kind);
    config.parallel.experts = 1;
    if (config.ffn.router == "random") config.ffn.inference = "average";
    SmallRun run = run_alone(config);
    const double at_first = run->evaluate().loss;
    run.train(2);
    run->save(*make_local_communicator(), path);
    SmallRun fresh = run_alone(config);
    fresh->load(*make_local_communicator(), path);
    const double now = run->evaluate().loss;
    EXPECT_EQ(now, fresh->evaluate().loss);
    EXPECT_NE(now, at_first);
  }
  std::filesystem::remove(path);
}

// Nothing but lists of a few numbers.
TEST(Trainer, AllocatesNothingAfterTheSecondStep) {
  for (const Kind& kind : all_kinds()) {
    SCOPED_TRACE(kind.name);
    SmallRun run = run_on_all_ranks(config_of(kind));
    run.train(2);
    const Index arena_before = run->num_arena_allocations();
    const int large_before = num_large_blocks;
    run->train_step();
    EXPECT_EQ(run->num_arena_allocations(), arena_before);
    EXPECT_EQ(num_large_blocks, large_before);
    EXPECT_GT(large_before, 0);
  }
}

TEST(Trainer, LearnsRealImages) {
  if (!std::filesystem::exists(default_path("fashion-mnist")))
    GTEST_SKIP() << "Fashion-MNIST (Debian package dataset-fashion-mnist) is not installed";
  for (const Kind& kind : {kind_named("dense"), kind_named("switch"), kind_named("random")}) {
    Config config = small_config();
    kind.set(config);
    config.data = {};
    config.data.limit = 480;
    config.model.patch = 7;
    config.model.width = 32;
    config.ffn.hidden = 64;
    config.ffn.expert_init = "same";
    config.train.microbatch = 12;
    config.train.dropout = config.train.weight_decay = 0;
    config.train.lr = 4e-3;
    config.run.epochs = 12;
    config.parallel.experts = expert_parallel_sizes(config, world_size()).back();
    SmallRun run = run_on_all_ranks(config);
    const double loss_before = run->evaluate().loss;
    run.train(run->total_steps());
    const Evaluation after = run->evaluate();
    RecordProperty(kind.name + " accuracy", std::to_string(after.accuracy));
    EXPECT_NEAR(loss_before, std::log(10), 0.5) << kind.name;
    EXPECT_LT(after.loss, 0.5 * loss_before) << kind.name;
    EXPECT_GT(after.accuracy, 60) << kind.name;
  }
}

}  // namespace
}  // namespace switchyard::testing
