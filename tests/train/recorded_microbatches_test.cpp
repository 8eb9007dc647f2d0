// Trainings whose microbatches are recorded on the (emulated) GPU and launched again: the same bits as without,
// whatever comes between steps, in few launches.
#include <gtest/gtest.h>

#include <cmath>

#include "train/shared_folder.hpp"
#include "train/small_run.hpp"

namespace emulated {
long num_launches();
}  // namespace emulated

namespace switchyard::testing {
namespace {

// 6 microbatches of 2, of which the tree of sums has blocks of 3; on one rank 3 of them.
Config small_batches(const std::string& kind, const std::string& graphs) {
  Config config = config_of(kind_named(kind));
  config.compute.device = "cuda";
  config.compute.graphs = graphs;
  config.data.synthetic_samples = 20;
  config.train.batch = world_size() > 1 ? 12 : 6;
  return config;
}

long launches_of_a_step(SmallRun& run) {
  const long before = emulated::num_launches();
  run.train(1);
  return emulated::num_launches() - before;
}

// In place of NaN, which does not equal itself.
std::vector<float> with_zeros(std::vector<float> values) {
  for (float& value : values)
    if (std::isnan(value)) value = 0;
  return values;
}

struct Case {
  const char* kind;
  const char* dtype = "fp32";
  double gate_jitter = 0;
  const char* draw = "model";
  Index experts = 4;
};

class SameBits : public ::testing::TestWithParam<Case> {};

// Five steps, of which the second of a kind records. After the first an evaluation, which packs weights and leaves
// other plans behind, and after the third another; and a checkpoint, to which the run goes back after the fourth.
TEST_P(SameBits, WithAndWithoutGraphsAndOnAllRanks) {
  const SharedFolder folder;
  const auto world = world_communicator();
  const auto config = [&](const char* graphs) {
    Config result = small_batches(GetParam().kind, graphs);
    result.compute.dtype = GetParam().dtype;
    result.ffn.gate_jitter = result.ffn.gate_dropout = GetParam().gate_jitter;
    result.ffn.draw = GetParam().draw;
    result.ffn.experts = GetParam().experts;
    result.parallel.overlap = world_size() > 1 ? "on" : "off";
    return result;
  };
  SmallRun plain = run_alone(config("off")), recorded = run_on_all_ranks(config("auto"));
  const auto same_step = [&](Index step) {
    const StepMetrics expected = plain.train(1)[0], found = recorded.train(1)[0];
    EXPECT_EQ(found.loss, expected.loss) << "step " << step;
    EXPECT_EQ(found.accuracy, expected.accuracy) << "step " << step;
    EXPECT_EQ(found.routing.tokens, expected.routing.tokens) << "step " << step;
    EXPECT_EQ(with_zeros(found.routing.weight), with_zeros(expected.routing.weight)) << "step " << step;
    EXPECT_EQ(recorded->digest(), plain->digest()) << "step " << step;
  };
  same_step(1);
  EXPECT_EQ(recorded->evaluate().loss, plain->evaluate().loss);
  same_step(2);
  same_step(3);
  EXPECT_EQ(recorded->evaluate().loss, plain->evaluate().loss);
  const std::string digest = plain->digest();
  recorded->save(*world, folder / "checkpoint.h5", {});
  same_step(4);
  SmallRun resumed = run_on_all_ranks(config("auto"));
  resumed->load(*world, folder / "checkpoint.h5");
  recorded->load(*world, folder / "checkpoint.h5");
  EXPECT_EQ(recorded->digest(), digest);
  resumed.train(2);
  recorded.train(1);
  same_step(5);
  EXPECT_EQ(resumed->digest(), plain->digest());
}

INSTANTIATE_TEST_SUITE_P(Cases, SameBits,
                         ::testing::Values(Case{"dense, images turned, with input dropout"}, Case{"dense", "bf16"},
                                           Case{"random per balanced", "fp32", 0, "layer"},
                                           Case{"random per balanced", "bf16"}, Case{"hash", "bf16"},
                                           Case{"expert_choice"}, Case{"expert_choice", "bf16", 0.1}, Case{"mlp"},
                                           Case{"random", "bf16", 0, "model", 2}),
                         [](const auto& of) { return "Case" + std::to_string(of.index); });

// Images and labels, a graph; routes at random are copied by the graph.
TEST(Launches, OfARecordedMicrobatchAreThree) {
  if (world_size() > 1) return;
  for (const char* kind : {"dense", "random per balanced", "hash", "expert_choice"}) {
    SCOPED_TRACE(kind);
    const auto launches = [&](Index batch) {
      Config config = small_batches(kind, "auto");
      config.compute.dtype = "bf16";
      config.train.batch = batch;
      SmallRun run = run_alone(config);
      run.train(1);
      const long recording = launches_of_a_step(run);
      EXPECT_EQ(launches_of_a_step(run), recording);
      return recording;
    };
    EXPECT_EQ(launches(8) - launches(4), 2 * 3);
  }
}

// Here all tokens of a step go to one expert, and each expert's steps are recorded when it is drawn for the second
// time.
TEST(Launches, AreRecordedForEachExpertThatABatchMayGoTo) {
  if (world_size() > 1) return;
  Config config = small_batches("random", "auto");
  config.ffn.experts = 2;
  SmallRun run = run_alone(config);
  EXPECT_EQ(run->plan().recorded, run->plan().microbatches);
  const auto expert = [&](const StepMetrics& metrics) { return metrics.routing.tokens[0] > 0 ? 0u : 1u; };
  int steps_of[2] = {};
  for (Index step = 0; step < 7; ++step) {
    const long before = emulated::num_launches();
    const StepMetrics metrics = run.train(1)[0];
    const int steps = ++steps_of[expert(metrics)];
    const bool launches_few = emulated::num_launches() - before < 100;
    EXPECT_EQ(launches_few, (steps > 1)) << "step " << step;
    EXPECT_EQ(metrics.prepares, steps <= 2) << "step " << step;
  }
  EXPECT_GT(steps_of[0], 1);
  EXPECT_GT(steps_of[1], 1);
}

// The host reads a gate's counts, experts of another rank are sent tokens, or nobody wants it.
TEST(Launches, AreOneByOneWhereTheHostHasSomethingToDo) {
  const auto launches = [](Config config) {
    SmallRun run = run_on_all_ranks(config);
    run.train(2);
    return launches_of_a_step(run);
  };
  for (const char* kind : {"switch", "hash of content", "random, each layer", "random twice, thor", "fff"})
    EXPECT_EQ(launches(small_batches(kind, "auto")), launches(small_batches(kind, "off"))) << kind;
  Config config = small_batches("random per balanced", "auto"), off = small_batches("random per balanced", "off");
  EXPECT_LT(10 * launches(config), launches(off));
  if (world_size() == 1) return;
  config.parallel.experts = off.parallel.experts = world_size();
  EXPECT_EQ(launches(config), launches(off));
}

}  // namespace
}  // namespace switchyard::testing
