// A mixture in its block: what becomes of tokens that no expert works on, and of a step that stays home.
#include <gtest/gtest.h>

#include "model/kinds.hpp"
#include "model/small_model.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kTokens = 24, kWidth = 8;

struct Rows {
  std::vector<float> y;                          // (tokens, width)
  std::vector<std::int32_t> slot_of_assignment;  // (tokens * top_k)
  Index top_k = 1;
};

Rows forward(const std::string& router, double capacity, bool training, const std::vector<float>& residual) {
  FfnOptions options;
  options.kind = "moe";
  options.width = options.out = kWidth;
  options.hidden = 12;
  options.prefix = "block";
  options.num_experts = 4;
  options.router.name = router;
  options.router.capacity_train = options.router.capacity_eval = capacity;
  ParameterTable table;
  const std::unique_ptr<Ffn> ffn = make_ffn(options, table);
  const Cpu cpu;
  ParameterStore parameters(Device::kCpu, table, 0, 4);
  parameters.initialize(cpu, 3);
  kernels::Arena arena(Device::kCpu);
  const auto group = make_local_communicator();
  PhaseSeconds seconds;
  const Pass pass{.context = cpu,
                  .arena = arena,
                  .parameters = parameters,
                  .expert_group = *group,
                  .seconds = seconds,
                  .training = training};
  const std::vector<float> x = random_floats(kTokens * kWidth, 5);
  AuxiliaryLosses losses;
  const float* y = ffn->forward(
      pass, {.samples = kTokens, .tokens_per_sample = 1, .first_sample = 0, .x = x.data(), .residual = residual.data()},
      &losses);
  const RoutePlan& plan = *ffn->plan();
  return {{y, y + kTokens * kWidth},
          {plan.slot_of_assignment, plan.slot_of_assignment + plan.tokens * plan.top_k},
          plan.top_k};
}

TEST(MoeFfn, TheResidualAloneCarriesTokensThatNoExpertWorksOn) {
  const std::vector<float> residual = random_floats(kTokens * kWidth, 6);
  for (const char* router : {"switch", "top_k", "expert_choice", "random", "hash"}) {
    for (const bool training : {true, false}) {
      const Rows rows = forward(router, 0.5, training, residual);
      Index num_carried = 0;
      for (Index token = 0; token < kTokens; ++token) {
        const auto slot = rows.slot_of_assignment.begin() + token * rows.top_k;
        const bool carried = std::all_of(slot, slot + rows.top_k, [](std::int32_t s) { return s < 0; });
        const auto in = residual.begin() + token * kWidth, out = rows.y.begin() + token * kWidth;
        EXPECT_EQ(std::equal(in, in + kWidth, out), carried) << router << ", token " << token;
        num_carried += carried;
      }
      EXPECT_GT(num_carried, 0) << router;
      EXPECT_LT(num_carried, kTokens) << router;
    }
  }
}

// M = 8 microbatches; homes as of all ranks here, in expert groups of 2 or of all of them.
TEST(MoeFfn, AStepThatStaysHomeHasNoExchangeInTheLayoutOfItsHomes) {
  const Index ranks = world_size();
  for (Index group = 2; group <= ranks; group *= 2) {
    for (const bool matches : {true, false}) {
      ModelOptions options = small_options();
      options.ffn.kind = "moe";
      options.ffn.num_experts = 8;
      options.ffn.router.name = "top_k";
      options.ffn.router.top_k = 1;
      options.ffn.router.gating_dropout = 1;
      // Otherwise homes alternate from one microbatch of a rank to the next.
      options.ffn.router.home_ranks = matches ? ranks : 8;
      options.ffn.router.home_experts = matches ? group : 2;
      const Batch batch = random_batch(options, 16, 2);
      const auto run = [&](std::unique_ptr<Communicator> world, Index expert_parallel) {
        Mesh mesh(std::move(world), expert_parallel);
        SmallModel model(options, mesh);
        model.parameters().initialize(Cpu(), 17);
        return model.run(batch, {.dropout = 0.2f});
      };
      const Outcome here = run(world_communicator(), group), alone = run(make_local_communicator(), 1);
      EXPECT_EQ(here.exchange_seconds > 0, !matches) << "groups of " << group;
      EXPECT_EQ(here.loss, alone.loss);
      EXPECT_EQ(here.auxiliary, alone.auxiliary);
    }
  }
}

}  // namespace
}  // namespace switchyard::testing
