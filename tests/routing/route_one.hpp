// A router on its own: parameters, memory, and the microbatches it is asked about.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "routing/router.hpp"
#include "support/ranks.hpp"

namespace switchyard::testing {

// A plan's arrays, copied out of the arena.
struct Routes {
  Index top_k = 1;
  std::vector<std::int32_t> experts;  // (tokens * top_k); -1: a choice not made
  std::vector<float> weights;         // (tokens * top_k); empty: all 1
  std::vector<std::int32_t> assignment_of_slot, slot_of_assignment, tokens_per_expert, chosen;
  bool same_counts_everywhere = false;
  AuxiliaryLosses losses;
  double auxiliary = 0;  // all of them
};

// Which microbatch of what.
struct Place {
  Index samples = 1, tokens_per_sample = 1, first_sample = 0, layer = 0, step = 0;
  Index microbatch = 0, num_microbatches = 1, passes = 1;
  std::uint64_t seed = 1;
  bool training = true;
  const std::int32_t* words = nullptr;  // (samples * tokens_per_sample)
};

class RouterUnderTest {
 public:
  RouterUnderTest(const std::string& name, const std::string& granularity, Index num_experts, Index width = 0,
                  double balance_loss = 0)
      : RouterUnderTest([&] {
          RouterOptions options;
          options.name = name;
          options.granularity = granularity;
          options.num_experts = num_experts;
          options.width = width;
          options.balance_loss = balance_loss;
          return options;
        }()) {}

  explicit RouterUnderTest(RouterOptions options) {
    options.prefix = "gate";
    router_ = make_router(options, table_);
    parameters_ = std::make_unique<ParameterStore>(Device::kCpu, table_, 0, 0);
    parameters_->initialize(cpu_, 3);
  }

  Routes route(const Place& place, const float* x = nullptr) {
    const kernels::ArenaScope scope(arena_);
    Routes routes;
    AuxiliaryLosses losses;
    const RoutePlan plan = router_->route(input(place, x), &losses);
    routes.losses = losses;
    routes.auxiliary = losses.total();
    const auto copy = [&](auto* from) { return std::vector(from, from + plan.tokens * plan.top_k); };
    EXPECT_EQ(plan.tokens, place.samples * place.tokens_per_sample);
    routes.top_k = plan.top_k;
    routes.experts = copy(plan.experts);
    if (plan.weights) routes.weights = copy(plan.weights);
    routes.slot_of_assignment = copy(plan.slot_of_assignment);
    routes.tokens_per_expert = plan.tokens_per_expert;
    routes.chosen = plan.chosen;
    const auto num_slots = std::accumulate(plan.tokens_per_expert.begin(), plan.tokens_per_expert.end(), 0);
    routes.assignment_of_slot = {plan.assignment_of_slot, plan.assignment_of_slot + num_slots};
    routes.same_counts_everywhere = plan.same_counts_everywhere;
    EXPECT_EQ(plan.num_experts, static_cast<Index>(routes.tokens_per_expert.size()));
    return routes;
  }

  RouteInput input(const Place& place, const float* x) {
    return {.context = cpu_,
            .arena = arena_,
            .parameters = *parameters_,
            .x = x,
            .words = place.words,
            .samples = place.samples,
            .tokens_per_sample = place.tokens_per_sample,
            .first_sample = place.first_sample,
            .passes = place.passes,
            .microbatch = place.microbatch,
            .num_microbatches = place.num_microbatches,
            .layer = place.layer,
            .step = place.step,
            .seed = place.seed,
            .training = place.training};
  }

  Router& router() { return *router_; }
  ParameterStore& parameters() { return *parameters_; }
  kernels::Arena& arena() { return arena_; }
  const Context& context() const { return cpu_; }

 private:
  Cpu cpu_;
  kernels::Arena arena_{Device::kCpu};
  ParameterTable table_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<ParameterStore> parameters_;
};

// A learned router as wide as it has experts, whose logits are its input.
class RouterOfLogits : public RouterUnderTest {
 public:
  explicit RouterOfLogits(RouterOptions options) : RouterUnderTest((options.width = options.num_experts, options)) {
    std::fill_n(parameters().values(), parameters().size(), 0.0f);
    for (Index e = 0; e < options.num_experts; ++e) parameters().values()[e * (options.num_experts + 1)] = 1;
  }
};

// Without a limit on capacity: counts are those of the experts, slots are sorted by expert and in order within one, and
// both maps are inverse.
inline void expect_consistent(const Routes& routes) {
  std::vector<std::int32_t> counts(routes.tokens_per_expert.size()), sorted;
  for (std::size_t a = 0; a < routes.experts.size(); ++a) {
    const std::int32_t expert = routes.experts[a];
    ASSERT_GE(expert, -1);
    ASSERT_LT(expert, static_cast<std::int32_t>(counts.size()));
    if (expert < 0) {
      EXPECT_EQ(routes.slot_of_assignment[a], -1);
      continue;
    }
    ++counts[static_cast<std::size_t>(expert)];
    sorted.push_back(static_cast<std::int32_t>(a));
  }
  EXPECT_EQ(routes.tokens_per_expert, counts);
  EXPECT_EQ(routes.chosen, counts);
  std::stable_sort(sorted.begin(), sorted.end(), [&](std::int32_t a, std::int32_t b) {
    return routes.experts[static_cast<std::size_t>(a)] < routes.experts[static_cast<std::size_t>(b)];
  });
  EXPECT_EQ(routes.assignment_of_slot, sorted);
  for (std::size_t slot = 0; slot < sorted.size(); ++slot)
    EXPECT_EQ(routes.slot_of_assignment[static_cast<std::size_t>(sorted[slot])], static_cast<std::int32_t>(slot));
}

}  // namespace switchyard::testing
