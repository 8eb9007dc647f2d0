// The promise: a run's result does not depend on how it was run. Each rank trains alone, without MPI, and then all
// train together, in every layout that their number allows: the same bits must come out.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "train/small_run.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kSteps = 3;  // into the second epoch

// NaN, which stands for "none", is the same as itself.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void expect_same(const StepMetrics& found, const StepMetrics& expected) {
  EXPECT_EQ(found.step, expected.step);
  EXPECT_EQ(found.loss, expected.loss);
  EXPECT_EQ(found.auxiliary, expected.auxiliary);
  EXPECT_EQ(found.accuracy, expected.accuracy);
  EXPECT_EQ(found.gradient_norm, expected.gradient_norm);
  EXPECT_EQ(found.learning_rate, expected.learning_rate);
  EXPECT_EQ(found.routing.tokens, expected.routing.tokens);
  EXPECT_EQ(found.routing.dropped, expected.routing.dropped);
  EXPECT_TRUE(same_bits(found.routing.weight, expected.routing.weight));
  EXPECT_TRUE(same_bits(found.routing.gate_entropy, expected.routing.gate_entropy));
}

// Calls body(config) for each expert-parallel size and the numbers of threads; with one thread microbatches take turns
// where tokens travel, and gradients are summed over ranks as they come.
template <typename Body>
void for_each_layout(Config config, const std::vector<Index>& thread_counts, const Body& body) {
  for (Index experts : expert_parallel_sizes(config, world_size())) {
    for (Index threads : thread_counts) {
      SCOPED_TRACE("expert-parallel size " + std::to_string(experts) + ", threads " + std::to_string(threads));
      config.parallel.experts = experts;
      config.parallel.threads = threads;
      config.parallel.overlap = threads == 1 ? "on" : "off";
      body(config);
    }
  }
}

TEST(Layout, ParametersAndMetricsAreTheSameBits) {
  for (const Kind& kind : all_kinds()) {
    SCOPED_TRACE(kind.name);
    const Config config = config_of(kind);
    SmallRun alone = run_alone(config);
    const std::vector<StepMetrics> expected = alone.train(kSteps);
    for_each_layout(config, {1, 2}, [&](const Config& layout) {
      SmallRun together = run_on_all_ranks(layout);
      const std::vector<StepMetrics> found = together.train(kSteps);
      for (std::size_t step = 0; step < kSteps; ++step) expect_same(found[step], expected[step]);
      EXPECT_EQ(together->digest(), alone->digest());
    });
  }
}

TEST(Layout, EvaluationIsTheSameBits) {
  for (const Kind& kind : all_kinds()) {
    for (const char* inference : {"route", "average"}) {
      if (kind.name == "dense" && inference == std::string("average")) continue;
      SCOPED_TRACE(kind.name + ", " + inference);
      Config config = config_of(kind);
      config.ffn.inference = inference;
      SmallRun alone = run_alone(config);
      alone.train(1);
      const Evaluation expected = alone->evaluate();
      EXPECT_GT(expected.loss, 0);
      for_each_layout(config, {2}, [&](const Config& layout) {
        SmallRun together = run_on_all_ranks(layout);
        together.train(1);
        const Evaluation found = together->evaluate();
        EXPECT_EQ(found.loss, expected.loss);
        EXPECT_EQ(found.accuracy, expected.accuracy);
      });
    }
  }
}

// 10 of 100 training samples are for validation, 90 make one step an epoch.
TEST(Layout, EverySplitIsMeasuredToTheSameBits) {
  for (const char* name : {"dense", "switch"}) {
    SCOPED_TRACE(name);
    Config config = config_of(kind_named(name));
    config.data.validation = 0.1;
    config.run.measure_training = true;
    SmallRun alone = run_alone(config);
    EXPECT_EQ(alone->steps_per_epoch(), 1);
    alone.train(2);
    const Measures expected = alone->measure();
    for_each_layout(config, {1, 2}, [&](const Config& layout) {
      SmallRun together = run_on_all_ranks(layout);
      together.train(2);
      EXPECT_EQ(together->digest(), alone->digest());
      const Measures found = together->measure();
      EXPECT_EQ(found.test.loss, expected.test.loss);
      EXPECT_EQ(found.validation->loss, expected.validation->loss);
      EXPECT_EQ(found.validation->accuracy, expected.validation->accuracy);
      EXPECT_EQ(found.training->loss, expected.training->loss);
      EXPECT_EQ(found.training->accuracy, expected.training->accuracy);
    });
  }
}

TEST(Layout, EvaluationDoesNotChangeTraining) {
  const Config config = config_of(kind_named("switch"));
  SmallRun with = run_on_all_ranks(config), without = run_on_all_ranks(config);
  with.train(1);
  with->evaluate();
  with.train(1);
  without.train(2);
  EXPECT_EQ(with->digest(), without->digest());
}

TEST(Layout, SgdKeepsThePromiseToo) {
  Config config = config_of(kind_named("switch"));
  config.train.optimizer = "sgd";
  SmallRun alone = run_alone(config);
  alone.train(kSteps);
  for_each_layout(config, {1}, [&](const Config& layout) {
    SmallRun together = run_on_all_ranks(layout);
    together.train(kSteps);
    EXPECT_EQ(together->digest(), alone->digest());
  });
}

// Digests that never changed would satisfy every test above.
TEST(Layout, DigestsDifferWhereAnythingThatCountsDoes) {
  std::vector<Kind> changes{
      {"nothing", [](Config&) {}},
      {"run.seed", [](Config& c) { c.run.seed = 8; }},
      {"data.crop_padding", [](Config& c) { c.data.crop_padding = 0; }},
      {"data.flip", [](Config& c) { c.data.flip = false; }},
      {"data.flip_vertical", [](Config& c) { c.data.flip_vertical = true; }},
      {"data.rotation", [](Config& c) { c.data.rotation = 20; }},
      {"data.scaling", [](Config& c) { c.data.scaling = 0.2; }},
      {"train.dropout", [](Config& c) { c.train.dropout = 0; }},
      {"train.input_dropout", [](Config& c) { c.train.input_dropout = 0.1; }},
      {"train.clip", [](Config& c) { c.train.clip = 0; }},
      {"train.weight_decay", [](Config& c) { c.train.weight_decay = 0; }},
      {"train.warmup_steps", [](Config& c) { c.train.warmup_steps = 3; }},
      {"train.optimizer", [](Config& c) { c.train.optimizer = "adamw"; }},
      {"train.microbatch", [](Config& c) { c.train.microbatch = 3; }},
      {"ffn.balance_loss", [](Config& c) { c.ffn.balance_loss = 0; }},
      {"ffn.expert_init", [](Config& c) { c.ffn.expert_init = "same"; }},
  };
  for (const Kind& kind : all_kinds())
    if (kind.name != "switch") changes.push_back(kind);
  std::set<std::string> digests;
  for (const Kind& change : changes) {
    Config config = config_of(kind_named("switch"));
    change.set(config);
    SmallRun run = run_alone(config);
    run.train(2);
    EXPECT_TRUE(digests.insert(run->digest()).second) << change.name << " made no difference";
    EXPECT_EQ(run->digest().size(), 32u);
  }
}

}  // namespace
}  // namespace switchyard::testing
