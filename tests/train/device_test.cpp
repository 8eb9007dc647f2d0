// A whole training on a GPU: near the CPU's, the same bits on any number of ranks, and its checkpoints go from one
// device to the other. The GPU is the emulated one: what the host does with device memory is real, and ends the program
// where it touches it.
#include <gtest/gtest.h>

#include "kernels/api/gemm.hpp"
#include "train/shared_folder.hpp"
#include "train/small_run.hpp"

namespace emulated {
long num_host_waits();
long num_idle_waits();
long num_launches();
}  // namespace emulated

namespace switchyard::testing {
namespace {

constexpr Index kSteps = 2;

// 6 microbatches of 2, of which the tree of sums has blocks of 3.
Config small_batch(const std::string& kind) {
  Config config = config_of(kind_named(kind));
  config.train.batch = 12;
  return config;
}

Config on_gpu(Config config) {
  config.compute.device = "cuda";
  return config;
}

class OneDevice : public ::testing::TestWithParam<std::string> {};
class ManyDevices : public ::testing::TestWithParam<std::string> {};

TEST_P(OneDevice, TrainsAsTheCpuDoes) {
  if (world_size() > 1) return;  // each rank would do the same
  const Config config = small_batch(GetParam());
  SmallRun cpu = run_alone(config), gpu = run_alone(on_gpu(config));
  const std::vector<StepMetrics> expected = cpu.train(kSteps), found = gpu.train(kSteps);
  for (std::size_t step = 0; step < kSteps; ++step) {
    EXPECT_NEAR(found[step].loss, expected[step].loss, 1e-4 * (1 + std::fabs(expected[step].loss)));
    EXPECT_NEAR(found[step].gradient_norm, expected[step].gradient_norm, 1e-3 * (1 + expected[step].gradient_norm));
    EXPECT_EQ(found[step].routing.tokens, expected[step].routing.tokens);
  }
  EXPECT_NEAR(gpu->evaluate().loss, cpu->evaluate().loss, 1e-3);
}

// In bf16, too, where arrays between the GPU's kernels and products are rounded, and tokens travel so both ways; and
// with overlap: gradients are summed over ranks, and tokens travel, on streams of their own, while other microbatches
// compute.
TEST_P(ManyDevices, GiveTheSameBitsOnAllRanks) {
  if (world_size() == 1) return;  // the same twice
  for (const char* dtype : {"fp32", "bf16"}) {
    Config config = on_gpu(small_batch(GetParam()));
    config.compute.dtype = dtype;
    SmallRun alone = run_alone(config);
    alone.train(kSteps);
    const Evaluation expected = alone->evaluate();
    for (const Index experts : expert_parallel_sizes(config, world_size())) {
      SCOPED_TRACE(std::string(dtype) + ", expert-parallel size " + std::to_string(experts));
      Config layout = config;
      layout.parallel.experts = experts;
      layout.parallel.overlap = config.compute.dtype == "bf16" ? "on" : "off";
      SmallRun together = run_on_all_ranks(layout);
      together.train(kSteps);
      EXPECT_EQ(together->digest(), alone->digest());
      EXPECT_EQ(together->evaluate().loss, expected.loss);
    }
  }
}

const auto kName = [](const auto& kind) { return "Kind" + std::to_string(kind.index); };
INSTANTIATE_TEST_SUITE_P(Kinds, OneDevice,
                         ::testing::Values("dense", "dense, images turned, with input dropout", "switch", "noisy_top_k",
                                           "random per balanced", "expert_choice", "top_k with capacity", "fff",
                                           "patch_cnn, experts, normalized"),
                         kName);
INSTANTIATE_TEST_SUITE_P(Kinds, ManyDevices, ::testing::Values("switch", "random per balanced", "fff"), kName);

// Widths that rows of bf16 have to be padded for.
TEST(Bf16, TrainsAsTheCpuDoes) {
  if (world_size() > 1) return;
  for (const char* kind : {"dense", "switch with capacity, shared expert, expert dropout", "fff"}) {
    SCOPED_TRACE(kind);
    Config config = small_batch(kind);
    config.compute.dtype = "bf16";
    config.model.width = 20;
    config.ffn.hidden = 26;
    SmallRun cpu = run_alone(config), gpu = run_alone(on_gpu(config));
    const std::vector<StepMetrics> expected = cpu.train(kSteps), found = gpu.train(kSteps);
    for (std::size_t step = 0; step < kSteps; ++step) {
      EXPECT_NEAR(found[step].loss, expected[step].loss, 0.01);
      EXPECT_NEAR(found[step].gradient_norm, expected[step].gradient_norm, 0.03);
    }
  }
}

// A gate reads rows in bf16 as experts do; one that perturbs them, or has many experts, in fp32, in evaluation too and
// beside the shared experts' bf16.
TEST(Bf16, GatesTrainAsOnTheCpu) {
  if (world_size() > 1) return;
  struct Gate {
    double jitter;
    Index experts, shared;
  };
  for (const Gate& gate : {Gate{0, 4, 0}, Gate{0.01, 4, 0}, Gate{0.01, 4, 1}, Gate{0, 40, 0}, Gate{0, 40, 1}}) {
    SCOPED_TRACE(::testing::Message() << gate.jitter << ", " << gate.experts << " experts, " << gate.shared);
    Config config = small_batch("switch");
    config.compute.dtype = "bf16";
    config.model.width = 20;
    config.ffn.gate_jitter = gate.jitter;
    config.ffn.experts = gate.experts;
    config.ffn.shared = gate.shared;
    SmallRun cpu = run_alone(config), gpu = run_alone(on_gpu(config));
    EXPECT_NEAR(gpu.train(1)[0].loss, cpu.train(1)[0].loss, 0.01);
    EXPECT_NEAR(gpu->evaluate().loss, cpu->evaluate().loss, 0.02);
  }
}

// All that is copied lies outside the blocks: the image's patches, and the logits' gradient. Rows that come from other
// ranks come rounded.
TEST(Bf16, NoProductOfABlockCopiesItsOperands) {
  for (const char* kind : {"dense", "switch", "random per balanced"}) {
    const auto copied = [&](Index layers) {
      Config config = on_gpu(small_batch(kind));
      config.compute.dtype = "bf16";
      config.train.batch = 4;
      config.model.layers = layers;
      if (config.ffn.kind == "moe") config.parallel.experts = world_size();
      SmallRun run = run_on_all_ranks(config);
      const Index before = kernels::staged_bytes(Device::kCuda);
      run.train(1);
      return kernels::staged_bytes(Device::kCuda) - before;
    };
    const Index of_one_layer = copied(1);
    EXPECT_GT(of_one_layer, 0) << kind;
    EXPECT_EQ(copied(3), of_one_layer) << kind;
  }
}

TEST(DeviceCheckpoint, GoesFromOneDeviceToTheOther) {
  const SharedFolder folder;
  const Config config = small_batch("switch");
  SmallRun gpu = run_on_all_ranks(on_gpu(config));
  gpu.train(1);
  const auto world = world_communicator();
  gpu->save(*world, folder / "checkpoint.h5", {});
  SmallRun cpu = run_on_all_ranks(config);
  cpu->load(*world, folder / "checkpoint.h5");
  EXPECT_EQ(cpu->digest(), gpu->digest());
  EXPECT_EQ(cpu->step(), 1);
  EXPECT_NEAR(cpu.train(1)[0].loss, gpu.train(1)[0].loss, 1e-4);
}

struct Waits {
  const char* kind;
  Index most;  // of the host for the GPU, in a step
};
class HostWaits : public ::testing::TestWithParam<Waits> {};

// Rows of experts' products are counted by the host: where a gate chooses experts it has to ask for them. (The first
// steps, which make room, wait more often.)
TEST_P(HostWaits, AreNoMoreThanRoutingForces) {
  if (world_size() > 1) return;  // exchanges by way of host memory wait, too
  Config config = on_gpu(small_batch(GetParam().kind));
  config.compute.graphs = "off";
  SmallRun gpu = run_alone(config);
  gpu.train(2);
  const long before = emulated::num_host_waits();
  gpu.train(1);
  EXPECT_LE(emulated::num_host_waits() - before, GetParam().most);
}

constexpr Index kMetrics = 1;     // with the gradient's norm
constexpr Index kLayers = 6 * 2;  // of all microbatches: each once for counts, losses included
INSTANTIATE_TEST_SUITE_P(Kinds, HostWaits,
                         ::testing::Values(Waits{"dense", kMetrics}, Waits{"random per balanced", kMetrics},
                                           Waits{"hash", kMetrics}, Waits{"expert_choice", kMetrics},
                                           Waits{"switch", kMetrics + kLayers},
                                           Waits{"noisy_top_k", kMetrics + kLayers}),
                         kName);

// While the host waits for one microbatch's counts, the GPU has the other's work. It runs out at a step's ends alone.
TEST(Turns, LeaveTheGpuNoGapWhereAGateIsAwaited) {
  if (world_size() > 1) return;
  for (const auto& [overlap, most] : {std::pair{"off", kMetrics + kLayers}, std::pair{"auto", kMetrics + 2}}) {
    Config config = on_gpu(small_batch("switch"));
    config.parallel.overlap = overlap;
    SmallRun gpu = run_alone(config);
    gpu.train(2);
    const long before = emulated::num_idle_waits();
    gpu.train(1);
    const long waits = emulated::num_idle_waits() - before;
    EXPECT_LE(waits, most) << overlap;
    if (config.parallel.overlap == "off") {
      EXPECT_EQ(waits, most);
    }
  }
}

// Two microbatches at a time have room for the activations of both.
TEST(Turns, AreTakenOnlyWhereTheHostWaits) {
  if (world_size() > 1) return;
  const auto rooms = [](const char* kind, const char* overlap) {
    Config config = on_gpu(small_batch(kind));
    config.parallel.overlap = overlap;
    SmallRun gpu = run_alone(config);
    gpu.train(1);
    EXPECT_EQ(gpu->plan().in_turn, std::string(kind) == "switch" && std::string(overlap) == "auto" ? 2 : 1);
    return gpu->num_arena_allocations();
  };
  EXPECT_GT(rooms("switch", "auto"), rooms("switch", "off"));
  for (const char* kind : {"dense", "random per token", "fff"})
    EXPECT_EQ(rooms(kind, "auto"), rooms(kind, "off")) << kind;
}

// Two products forward, four backward; biases, activations, sums over rows and packed weights of all experts together.
TEST(Launches, OfAStepGrowWithTheNumberOfExpertsByTheirProductsAlone) {
  if (world_size() > 1) return;
  for (const char* dtype : {"fp32", "bf16"}) {
    const auto launches = [&](Index experts) {
      Config config = on_gpu(small_batch("random per balanced"));
      config.compute.dtype = dtype;
      config.compute.graphs = "off";
      config.ffn.experts = experts;
      config.train.batch = config.train.microbatch = 16;
      SmallRun gpu = run_alone(config);
      gpu.train(1);
      const long before = emulated::num_launches();
      gpu.train(1);
      return emulated::num_launches() - before;
    };
    constexpr long kOfOneLayer = 6, kOfTheModel = 2 * kOfOneLayer;
    EXPECT_EQ(launches(8) - launches(4), 4 * kOfTheModel) << dtype;
  }
}

}  // namespace
}  // namespace switchyard::testing
