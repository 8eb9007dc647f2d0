// The whole model against golden values from an independent PyTorch model in double precision: the same parameters in,
// the same logits, losses and every gradient out, to single precision.
#include <gtest/gtest.h>

#include "model/golden_model.hpp"
#include "routing/router.hpp"

namespace switchyard::testing {
namespace {

// The first seed whose draw for step 0 sends the batch to `expert`.
std::uint64_t seed_that_draws(Index expert, Index num_experts) {
  ParameterTable table;
  const ParameterStore parameters(Device::kCpu, table, 0, 0);
  RouterOptions options;
  options.name = "random";
  options.granularity = "batch";
  options.num_experts = num_experts;
  const auto router = make_router(options, table);
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  for (std::uint64_t seed = 1;; ++seed) {
    const kernels::ArenaScope scope(arena);
    const RouteInput token{.context = cpu,
                           .arena = arena,
                           .parameters = parameters,
                           .samples = 1,
                           .tokens_per_sample = 1,
                           .seed = seed,
                           .training = true};
    if (router->route(token, nullptr).tokens_per_expert[static_cast<std::size_t>(expert)] == 1) return seed;
  }
}

void compare_with_golden_file(const std::string& router, Index expert_parallel) {
  SCOPED_TRACE(router + ", expert-parallel size " + std::to_string(expert_parallel));
  const GoldenFile file(router);
  Mesh mesh(world_communicator(), expert_parallel);
  SmallModel model(golden_options(file, router), mesh);
  load_parameters(file, model);
  PassOptions how;
  if (router == "random") how.seed = seed_that_draws(file.integer("expert"), file.integer("experts"));
  const Outcome outcome = model.run(golden_batch(file), how);

  expect_close(outcome.logits, share_of(file.floats("logits"), mesh.world()), "logits");
  EXPECT_NEAR(outcome.loss, file.floats("loss")[0], 1e-5);
  EXPECT_NEAR(outcome.auxiliary.balance, file.floats("balance_loss")[0], 1e-6);
  EXPECT_EQ(outcome.auxiliary.total(), outcome.auxiliary.balance);
  expect_gradients(file, model, outcome);
}

TEST(Golden, DenseModel) { compare_with_golden_file("dense", 1); }

TEST(Golden, SwitchRouting) {
  for (Index expert_parallel = 1; expert_parallel <= world_size(); expert_parallel *= 2)
    compare_with_golden_file("switch", expert_parallel);
}

TEST(Golden, RandomRoutingOfTheWholeBatch) {
  for (Index expert_parallel = 1; expert_parallel <= world_size(); expert_parallel *= 2)
    compare_with_golden_file("random", expert_parallel);
}

TEST(Golden, SwitchRoutesEachTokenAsTheFileSays) {
  const GoldenFile file("switch");
  Mesh mesh(world_communicator(), 1);
  SmallModel model(golden_options(file, "switch"), mesh);
  load_parameters(file, model);
  const Outcome outcome = model.run(golden_batch(file), {});

  const std::vector<std::int32_t> experts = file.integers("experts");  // (layers, batch, tokens)
  const Index layers = file.integer("layers"), batch = file.integer("batch"), microbatch = file.integer("microbatch");
  const Index tokens = model.model().options().num_tokens(), local = batch / microbatch / world_size();
  for (Index i = 0; i < local; ++i) {
    for (Index layer = 0; layer < layers; ++layer) {
      std::vector<std::int32_t> expected(static_cast<std::size_t>(file.integer("experts")));
      const Index first_sample = (world_rank() * local + i) * microbatch;
      for (Index token = 0; token < microbatch * tokens; ++token)
        ++expected[static_cast<std::size_t>(
            experts[static_cast<std::size_t>((layer * batch + first_sample) * tokens + token)])];
      EXPECT_EQ(outcome.tokens_per_expert[static_cast<std::size_t>(i * layers + layer)], expected)
          << "microbatch " << i << " of rank " << world_rank() << ", layer " << layer;
    }
  }
}

TEST(Golden, AverageInferenceUsesTheMeanOfTheExperts) {
  for (Index expert_parallel = 1; expert_parallel <= world_size(); expert_parallel *= 2) {
    const GoldenFile file("random");
    Mesh mesh(world_communicator(), expert_parallel);
    ModelOptions options = golden_options(file, "random");
    options.ffn.average_inference = true;
    SmallModel model(options, mesh);
    load_parameters(file, model);
    const Outcome outcome = model.run(golden_batch(file), {.training = false});
    expect_close(outcome.logits, share_of(file.floats("average_logits"), mesh.world()), "average_logits");
  }
}

}  // namespace
}  // namespace switchyard::testing
