// Gating dropout: when a step stays home, where home is, and that nothing travels where the layout matches.
#include "routing/gating_dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "routing/exchange.hpp"
#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

RouterOptions options_of(double probability, Index home_ranks, Index home_experts, Index num_experts = 8) {
  return {.name = "top_k",
          .num_experts = num_experts,
          .gating_dropout = probability,
          .home_ranks = home_ranks,
          .home_experts = home_experts};
}

bool stays_home(RouterUnderTest& router, const RouterOptions& options, const Place& place) {
  const ExpertRange range = allowed_experts(options, router.input(place, nullptr));
  return range.end - range.first < options.num_experts;
}

TEST(GatingDropout, OneDrawDecidesForAStepAndAllItsLayersAndMicrobatches) {
  const RouterOptions options = options_of(0.3, 4, 4);
  RouterUnderTest router("random", "batch", 8);
  constexpr Index kSteps = 2000;
  Index at_home = 0, as_other_seed = 0;
  for (Index step = 0; step < kSteps; ++step) {
    const bool home = stays_home(router, options, {.step = step, .num_microbatches = 8});
    at_home += home;
    as_other_seed += home == stays_home(router, options, {.step = step, .seed = 2});
    for (const Index layer : {1, 5})
      for (const Index microbatch : {0, 7})
        EXPECT_EQ(stays_home(router, options,
                             {.first_sample = 3 * microbatch,
                              .layer = layer,
                              .step = step,
                              .microbatch = microbatch,
                              .num_microbatches = 8}),
                  home);
    EXPECT_FALSE(stays_home(router, options, {.step = step, .training = false}));
  }
  EXPECT_NEAR(static_cast<double>(at_home), 0.3 * kSteps, 5 * std::sqrt(kSteps * 0.3 * 0.7));
  EXPECT_LT(as_other_seed, kSteps * 3 / 4);
  for (Index step = 0; step < 100; ++step) {
    EXPECT_TRUE(stays_home(router, options_of(1, 2, 2), {.step = step}));
    EXPECT_FALSE(stays_home(router, options_of(0, 2, 2), {.step = step}));
  }
}

TEST(GatingDropout, HomeIsAFunctionOfTheMicrobatch) {
  RouterUnderTest router("random", "batch", 8);
  struct Case {
    Index home_ranks, home_experts;
    std::vector<Index> first;  // expert of the home of microbatches 0 to 7
  };
  for (const Case& c : {Case{2, 2, {0, 0, 0, 0, 4, 4, 4, 4}}, Case{4, 2, {0, 0, 4, 4, 0, 0, 4, 4}},
                        Case{4, 4, {0, 0, 2, 2, 4, 4, 6, 6}}, Case{8, 8, {0, 1, 2, 3, 4, 5, 6, 7}},
                        Case{8, 2, {0, 4, 0, 4, 0, 4, 0, 4}}}) {
    for (Index i = 0; i < 8; ++i) {
      const ExpertRange home = allowed_experts(options_of(1, c.home_ranks, c.home_experts),
                                               router.input({.microbatch = i, .num_microbatches = 8}, nullptr));
      EXPECT_EQ(home.first, c.first[static_cast<std::size_t>(i)]) << c.home_ranks << ", " << c.home_experts;
      EXPECT_EQ(home.end - home.first, 8 / c.home_experts);
    }
  }
}

TEST(GatingDropout, TokensChooseAmongTheExpertsOfTheirHome) {
  const std::vector<float> logits = random_floats(20 * 8, 3);
  for (const char* name : {"switch", "top_k", "noisy_top_k", "loss_free"}) {
    RouterOptions options = options_of(1, 2, 2);
    options.name = name;
    RouterOfLogits router(options);
    for (const Index microbatch : {0, 1}) {
      const Place place{.samples = 20, .microbatch = microbatch, .num_microbatches = 2};
      for (const std::int32_t expert : router.route(place, logits.data()).experts)
        EXPECT_EQ(expert / 4, microbatch) << name;
    }
    const Routes evaluation = router.route({.samples = 20, .training = false}, logits.data());
    EXPECT_TRUE(std::any_of(evaluation.experts.begin(), evaluation.experts.end(), [](auto e) { return e >= 4; }));
  }
}

// Every layout of up to 8 ranks against every layout that homes may have, by asking each expert for its owner.
TEST(GatingDropout, AllStayHomeExactlyWhereTheLayoutsMatch) {
  constexpr Index kMicrobatches = 16, kExperts = 8;
  RouterUnderTest router("random", "batch", kExperts);
  Index num_home = 0, num_away = 0;
  for (Index home_ranks = 2; home_ranks <= 16; home_ranks *= 2) {
    for (Index home_experts = 2; home_experts <= std::min(home_ranks, kExperts); home_experts *= 2) {
      const RouterOptions options = options_of(1, home_ranks, home_experts);
      const auto input_of = [&](Index microbatch) {
        return router.input({.microbatch = microbatch, .num_microbatches = kMicrobatches}, nullptr);
      };
      for (Index world = 1; world <= 8; world *= 2) {
        for (Index group = 1; group <= world; group *= 2) {
          const Index local = kMicrobatches / world;
          for (Index i = 0; i < kMicrobatches; ++i) {
            const Index first_rank = i / local / group * group;  // of the expert group
            bool expected = true;
            for (Index peer = 0; peer < group; ++peer) {
              const ExpertRange home = allowed_experts(options, input_of((first_rank + peer) * local + i % local));
              for (Index e = home.first; e < home.end; ++e) expected &= e / (kExperts / group) == peer;
            }
            EXPECT_EQ(all_stay_home(options, input_of(i), i / local % group, group, local), expected)
                << "homes " << home_ranks << ", " << home_experts << "; layout " << world << ", " << group
                << "; microbatch " << i;
            (expected ? num_home : num_away) += 1;
            if (world == home_ranks && group == home_experts) {
              EXPECT_TRUE(expected);
            }
          }
        }
      }
    }
  }
  EXPECT_GT(num_home, 100);
  EXPECT_GT(num_away, 100);
  EXPECT_FALSE(all_stay_home(options_of(0, 4, 4), router.input({}, nullptr), 0, 1, 1));
  EXPECT_FALSE(all_stay_home(options_of(1, 4, 4), router.input({.training = false}, nullptr), 0, 1, 1));
}

// Counts what it is asked to carry.
class CountingCommunicator final : public Communicator {
 public:
  explicit CountingCommunicator(Communicator& inner) : Communicator(inner.rank(), inner.world_ranks()), inner_(inner) {}
  void exchange_arrays(const Context&, std::string_view what, std::span<const Transfer> transfers,
                       const Meanwhile&) override {
    exchange(what, transfers);
  }
  std::unique_ptr<Communicator> split(int color) override { return inner_.split(color); }
  void set_timeout(Index seconds) override { inner_.set_timeout(seconds); }
  void all_reduce(const Context& context, float* data, Index size) override { inner_.all_reduce(context, data, size); }
  void exchange(std::string_view what, std::span<const Transfer> transfers) override {
    ++calls;
    inner_.exchange(what, transfers);
  }
  int calls = 0;

 private:
  Communicator& inner_;
};

TEST(GatingDropout, NothingTravelsWhereAllStayHome) {
  const auto world = world_communicator();
  const Index ranks = world->size(), each = 8 / ranks;
  for (const bool home : {true, false}) {
    CountingCommunicator group(*world);
    RoutePlan plan;
    plan.num_experts = 8;
    plan.tokens = 3 * each;
    plan.tokens_per_expert.assign(8, 0);
    for (Index e = 0; e < each; ++e) plan.tokens_per_expert[static_cast<std::size_t>(world->rank() * each + e)] = 3;
    plan.all_stay_home = home;
    const Cpu cpu;
    kernels::Arena arena(Device::kCpu);
    PhaseSeconds seconds;
    Exchange exchange(cpu, group, plan, seconds);
    std::vector<float> rows = random_floats(plan.tokens * 5, 1);
    float* received = exchange.to_experts(arena, rows.data(), 5);
    const float* returned = exchange.to_tokens(arena, received, 5);

    const bool travels = ranks > 1 && !home;
    EXPECT_EQ(group.calls, travels ? 3 : 0) << "counts, dispatch, combine";
    EXPECT_EQ(seconds.exchange > 0, travels);
    EXPECT_EQ(received == rows.data(), !travels);
    EXPECT_EQ(std::vector<float>(returned, returned + rows.size()), rows);
    EXPECT_EQ(exchange.num_received(), plan.tokens);
    // The same work by the same segments, whether it was known beforehand or not.
    Index next = 0;
    for (const Segment& segment : exchange.segments()) {
      EXPECT_EQ(segment.rows, segment.source == world->rank() ? 3 : 0);
      EXPECT_EQ(segment.first_row, next);
      next += segment.rows;
    }
  }
}

}  // namespace
}  // namespace switchyard::testing
