// Loss-free balancing: what its bias does to choices and weights, and how it moves.
#include <gtest/gtest.h>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kExperts = 4, kTokens = 16;
const RouterOptions kOptions{
    .name = "loss_free", .num_experts = kExperts, .top_k = 1, .scores = "sigmoid", .bias_rate = 0.25};

std::vector<float> bias_of(RouterUnderTest& router) {
  const ParameterStore& parameters = router.parameters();
  const float* bias = parameters.value(parameters.table().size() - 1);
  return {bias, bias + kExperts};
}

TEST(LossFreeRouter, TheBiasIsAParameterThatNoGradientTrains) {
  RouterOptions options = kOptions;
  options.width = 3;
  RouterUnderTest router(options);
  const ParameterTable& table = router.parameters().table();
  ASSERT_EQ(table.size(), 3);
  EXPECT_EQ(table[2].name, "gate.selection_bias");
  EXPECT_FALSE(table[2].trained);
  EXPECT_FALSE(table[2].per_expert);
  EXPECT_EQ(bias_of(router), std::vector<float>(kExperts, 0.0f));
}

TEST(LossFreeRouter, TheBiasMovesByItsRateTowardsTheMeanLoad) {
  RouterOfLogits router(kOptions);
  const auto step = [&](const std::vector<float>& chosen) {
    router.router().after_step(router.context(), chosen, router.parameters());
    return bias_of(router);
  };
  EXPECT_EQ(step({7, 7, 7, 7}), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_EQ(step({10, 2, 6, 6}), (std::vector<float>{-0.25f, 0.25f, 0, 0}));
  EXPECT_EQ(step({24, 0, 0, 0}), (std::vector<float>{-0.5f, 0.5f, 0.25f, 0.25f}));  // however far off
  EXPECT_EQ(step({1, 1, 1, 0}), (std::vector<float>{-0.75f, 0.25f, 0, 0.5f}));      // the mean is no whole number
  EXPECT_EQ(step({0, 0, 0, 0}), (std::vector<float>{-0.75f, 0.25f, 0, 0.5f}));
}

TEST(LossFreeRouter, TheBiasMovesTheChoiceAndNotTheWeight) {
  std::vector<float> logits;
  for (Index t = 0; t < kTokens; ++t)
    for (const float z : {1.0f, 0.9f, 0.0f, -1.0f}) logits.push_back(z);
  RouterOfLogits router(kOptions);
  const Routes before = router.route({.samples = kTokens}, logits.data());
  EXPECT_EQ(before.experts, std::vector<std::int32_t>(kTokens, 0));
  const std::vector<float> chosen(before.chosen.begin(), before.chosen.end());
  router.router().after_step(router.context(), chosen, router.parameters());
  for (const bool training : {true, false}) {
    const Routes after = router.route({.samples = kTokens, .training = training}, logits.data());
    EXPECT_EQ(after.experts, std::vector<std::int32_t>(kTokens, 1));
    for (const float weight : after.weights) EXPECT_NEAR(weight, 1 / (1 + std::exp(-0.9)), 1e-6);
  }
}

TEST(LossFreeRouter, OverloadedExpertsLoseTheirTokensInTheEnd) {
  // Every token likes expert 0 best, and by different margins.
  std::vector<float> logits = random_floats(64 * kExperts, 8);
  for (std::size_t t = 0; t < 64; ++t) logits[t * kExperts] += 1.5f;
  RouterOptions options = kOptions;
  options.bias_rate = 0.01;
  RouterOfLogits router(options);
  const auto largest = [](const Routes& routes) {
    return *std::max_element(routes.chosen.begin(), routes.chosen.end());
  };
  EXPECT_GT(largest(router.route({.samples = 64}, logits.data())), 50);
  for (int step = 0; step < 200; ++step) {
    const Routes routes = router.route({.samples = 64}, logits.data());
    const std::vector<float> chosen(routes.chosen.begin(), routes.chosen.end());
    router.router().after_step(router.context(), chosen, router.parameters());
  }
  EXPECT_LE(largest(router.route({.samples = 64}, logits.data())), 20);
}

}  // namespace
}  // namespace switchyard::testing
