// A mixture in its block: what becomes of tokens that no expert works on, and of a step that stays home.
#include <gtest/gtest.h>

#include "model/kinds.hpp"
#include "model/small_model.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kTokens = 24, kWidth = 8;

FfnOptions options_of(const std::string& router, double capacity) {
  FfnOptions options;
  options.kind = "moe";
  options.width = options.out = kWidth;
  options.hidden = 12;
  options.prefix = "block";
  options.num_experts = 4;
  options.router.name = router;
  options.router.capacity_train = options.router.capacity_eval = capacity;
  return options;
}

struct Rows {
  std::vector<float> y;                          // (tokens, width)
  std::vector<std::int32_t> slot_of_assignment;  // (tokens * top_k)
  Index top_k = 1;
  bool in_order = true;  // x was wanted so
};

// asks: x is given as the network wants it; otherwise in order.
Rows forward(const FfnOptions& options, bool training, const std::vector<float>& residual, bool asks = false) {
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
  Ffn::Input input{.samples = kTokens, .tokens_per_sample = 1, .first_sample = 0, .residual = residual.data()};
  const InputForm form = asks ? ffn->prepare(pass, input) : InputForm{};
  std::vector<float> written = x;
  if (!form.slots.in_order()) {
    written.assign(static_cast<std::size_t>(form.num_slots * kWidth), 0);
    for (Index a = 0; a < kTokens * form.slots.top_k; ++a)
      if (const Index slot = form.slots.slot_of_assignment[a]; slot >= 0)
        std::copy_n(x.begin() + a / form.slots.top_k * kWidth, kWidth, written.begin() + slot * kWidth);
  }
  input.x = written.data();
  input.slots = form.slots;
  AuxiliaryLosses losses;
  const float* y = ffn->forward(pass, input, &losses);
  const RoutePlan& plan = *ffn->plan();
  return {{y, y + kTokens * kWidth},
          {plan.slot_of_assignment, plan.slot_of_assignment + plan.tokens * plan.top_k},
          plan.top_k,
          form.slots.in_order()};
}

TEST(MoeFfn, TheResidualAloneCarriesTokensThatNoExpertWorksOn) {
  const std::vector<float> residual = random_floats(kTokens * kWidth, 6);
  for (const char* router : {"switch", "top_k", "expert_choice", "random", "hash"}) {
    for (const bool training : {true, false}) {
      const Rows rows = forward(options_of(router, 0.5), training, residual);
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

TEST(MoeFfn, WantsItsInputInSlotsWhereNothingElseReadsIt) {
  const std::vector<float> residual = random_floats(kTokens * kWidth, 6);
  for (const bool training : {true, false})
    for (const RouterRow& row : router_table())
      for (const Index shared : {0, 1}) {
        SCOPED_TRACE(::testing::Message() << row.name << ", shared " << shared << ", training " << training);
        FfnOptions options = options_of(row.name, 0.75);
        options.shared = shared;
        const Rows asked = forward(options, training, residual, true), in_order = forward(options, training, residual);
        EXPECT_EQ(asked.in_order, row.learned || shared > 0);
        EXPECT_EQ(asked.slot_of_assignment, in_order.slot_of_assignment);
        EXPECT_EQ(asked.y, in_order.y);
      }
  FfnOptions averaged = options_of("random", 0);
  averaged.average_inference = true;
  EXPECT_FALSE(forward(averaged, true, residual, true).in_order);
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
