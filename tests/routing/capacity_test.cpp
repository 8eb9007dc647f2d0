// Capacities: an expert keeps the first so many of its assignments, and the others are dropped and counted.
#include <gtest/gtest.h>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

TEST(Capacity, IsTheFactorTimesAnEvenShareRoundedUp) {
  struct Case {
    double factor;
    Index tokens, top_k, experts, capacity;
  };
  RouterUnderTest router("random", "token", 4);
  for (const Case& c :
       {Case{0, 100, 1, 4, 0}, Case{1, 100, 1, 4, 25}, Case{1, 101, 1, 4, 26}, Case{1.25, 100, 1, 4, 32},
        Case{1.25, 100, 2, 4, 63}, Case{0.5, 10, 1, 4, 2}, Case{0.001, 10, 1, 4, 1}, Case{2, 0, 1, 4, 1},
        Case{4, 100, 1, 4, 0}, Case{1e6, 65536, 1, 2, 0}, Case{1e6, 1 << 30, 65536, 65536, 0}}) {
    for (const bool training : {true, false}) {
      RouterOptions options{.num_experts = c.experts, .capacity_train = 7, .capacity_eval = 7};
      (training ? options.capacity_train : options.capacity_eval) = c.factor;
      const Place place{.samples = c.tokens, .training = training};
      EXPECT_EQ(expert_capacity(options, router.input(place, nullptr), c.top_k, options.num_experts).limit, c.capacity)
          << c.factor << " * " << c.tokens << " * " << c.top_k << " / " << c.experts;
    }
  }
}

// Ten tokens that all like expert 2 best and expert 0 second.
std::vector<float> one_favourite() {
  std::vector<float> logits;
  for (Index t = 0; t < 10; ++t)
    for (const float z : {1.0f, -1.0f, 2.0f, -2.0f}) logits.push_back(z);
  return logits;
}

TEST(Capacity, LaterTokensAreDropped) {
  const std::vector<float> logits = one_favourite();
  RouterOfLogits router({.name = "switch", .num_experts = 4, .capacity_train = 1, .capacity_eval = 2});
  const Routes routes = router.route({.samples = 10}, logits.data());
  EXPECT_EQ(routes.experts, std::vector<std::int32_t>(10, 2));
  EXPECT_EQ(routes.chosen, (std::vector<std::int32_t>{0, 0, 10, 0}));
  EXPECT_EQ(routes.tokens_per_expert, (std::vector<std::int32_t>{0, 0, 3, 0}));
  EXPECT_EQ(routes.assignment_of_slot, (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_EQ(routes.slot_of_assignment, (std::vector<std::int32_t>{0, 1, 2, -1, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(router.route({.samples = 10, .training = false}, logits.data()).tokens_per_expert[2], 5);
}

TEST(Capacity, CountsEachOfATokensChoices) {
  const std::vector<float> logits = one_favourite();
  RouterOfLogits router({.name = "top_k", .num_experts = 4, .top_k = 2, .capacity_train = 1});
  const Routes routes = router.route({.samples = 10}, logits.data());
  EXPECT_EQ(routes.chosen, (std::vector<std::int32_t>{10, 0, 10, 0}));
  EXPECT_EQ(routes.tokens_per_expert, (std::vector<std::int32_t>{5, 0, 5, 0}));
  EXPECT_EQ(routes.assignment_of_slot, (std::vector<std::int32_t>{1, 3, 5, 7, 9, 0, 2, 4, 6, 8}));
}

// Three tokens; expert 0 is the second choice of the first and the first choice of the others.
TEST(Capacity, FirstChoicesHaveRoomBeforeSecondOnes) {
  const std::vector<float> logits = {1, 2, 0, 2, 1, 0, 2, 1, 0};
  for (const char* name : {"top_k", "noisy_top_k", "loss_free"}) {
    const auto slots = [&](const char* order) {
      RouterOfLogits router({.name = name, .num_experts = 3, .top_k = 2, .capacity_eval = 1, .capacity_order = order});
      return router.route({.samples = 3, .training = false}, logits.data()).slot_of_assignment;
    };
    EXPECT_EQ(slots("choice"), (std::vector<std::int32_t>{2, -1, 0, 3, 1, -1})) << name;
    EXPECT_EQ(slots("token"), (std::vector<std::int32_t>{2, 0, 1, 3, -1, -1})) << name;
    EXPECT_EQ(RouterOptions().capacity_order, "choice");
  }
}

TEST(Capacity, ThatNoExpertCanExceedIsNone) {
  const std::vector<float> logits = one_favourite();
  for (const double factor : {2.0, 4.0, 1e6}) {
    RouterOfLogits router({.name = "switch", .num_experts = 4, .capacity_train = factor});
    EXPECT_EQ(router.route({.samples = 10}, logits.data()).tokens_per_expert[2], factor == 2 ? 5 : 10) << factor;
    for (const char* name : {"random", "hash"}) {
      RouterUnderTest dealt(
          RouterOptions{.name = name, .num_experts = 4, .granularity = "batch", .capacity_train = 1e6});
      EXPECT_EQ(dealt.route({.samples = 2000, .tokens_per_sample = 8}).tokens_per_expert,
                dealt.route({.samples = 2000, .tokens_per_sample = 8}).chosen)
          << name;
    }
  }
}

TEST(Capacity, DroppedTokensCountInTheLosses) {
  const std::vector<float> logits = one_favourite();
  const auto losses = [&](double capacity) {
    RouterOfLogits router(
        {.name = "switch", .num_experts = 4, .balance_loss = 1, .importance_loss = 1, .capacity_train = capacity});
    return router.route({.samples = 10}, logits.data()).losses;
  };
  EXPECT_EQ(losses(1), losses(0));
}

TEST(Capacity, HoldsForRoutersWithoutAGate) {
  for (const char* name : {"random", "hash"}) {
    RouterUnderTest router(
        RouterOptions{.name = name, .num_experts = 4, .granularity = "batch", .capacity_train = 0.5});
    const Routes routes = router.route({.samples = 2, .tokens_per_sample = 8});
    for (const std::int32_t tokens : routes.tokens_per_expert) EXPECT_LE(tokens, 2) << name;
    EXPECT_EQ(std::accumulate(routes.chosen.begin(), routes.chosen.end(), 0), 16) << name;
  }
}

}  // namespace
}  // namespace switchyard::testing
