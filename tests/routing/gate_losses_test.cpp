// Auxiliary losses against values by hand.
#include "routing/gate_losses.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

TEST(CvSquared, IsPopulationVarianceOverSquaredMean) {
  std::vector<float> gradient;
  EXPECT_DOUBLE_EQ(cv_squared(std::vector<float>{1, 3}, &gradient), 0.25);
  EXPECT_EQ(gradient, (std::vector<float>{-0.375f, 0.125f}));  // 2 / (n m) ((x - m) / m - CV^2)
  EXPECT_DOUBLE_EQ(cv_squared(std::vector<float>{4, 0, 0, 0}, &gradient), 3);
  EXPECT_EQ(gradient, (std::vector<float>{0, -2, -2, -2}));
  EXPECT_DOUBLE_EQ(cv_squared(std::vector<float>{5, 5, 5}, &gradient), 0);
  EXPECT_EQ(gradient, (std::vector<float>{0, 0, 0}));
  EXPECT_DOUBLE_EQ(cv_squared(std::vector<float>{0, 0}, &gradient), 0);
  EXPECT_EQ(gradient, (std::vector<float>{0, 0}));
  EXPECT_DOUBLE_EQ(cv_squared(std::vector<float>{2, 6}, nullptr), 0.25) << "the scale does not count";
}

TEST(CvSquared, GradientIsItsSlope) {
  const std::vector<float> values = {1.5f, 0.25f, 3, 2, 0.5f};
  std::vector<float> gradient;
  cv_squared(values, &gradient);
  for (std::size_t i = 0; i < values.size(); ++i) {
    constexpr float kStep = 0.0078125f;
    std::vector<float> up = values, down = values;
    up[i] += kStep;
    down[i] -= kStep;
    EXPECT_NEAR(gradient[i], (cv_squared(up, nullptr) - cv_squared(down, nullptr)) / (2.0 * kStep), 1e-4) << i;
  }
}

// Two tokens, three experts, top-1: logits (ln 2, 0, 0) and (0, ln 6, 0), so that
// p = (1/2, 1/4, 1/4), (1/8, 3/4, 1/8) and logsumexp = ln 4, ln 8.
TEST(GateLosses, AreThoseByHand) {
  const float ln2 = std::log(2.0f), ln6 = std::log(6.0f);
  const std::vector<float> logits = {ln2, 0, 0, 0, ln6, 0};
  RouterOfLogits router(
      {.name = "switch", .num_experts = 3, .balance_loss = 0.5, .z_loss = 0.25, .importance_loss = 2});
  const AuxiliaryLosses losses = router.route({.samples = 2}, logits.data()).losses;
  // f = (1/2, 1/2, 0), P = (5/16, 1/2, 3/16)
  EXPECT_NEAR(losses.balance, 0.5 * 3 * (0.5 * 5 / 16 + 0.5 * 0.5), 1e-6);
  EXPECT_NEAR(losses.z, 0.25 * (std::pow(std::log(4.0), 2) + std::pow(std::log(8.0), 2)) / 2, 1e-6);
  // I = (1/2, 3/4, 0): mean 5/12, variance (1/4 + 9/16) / 3 - 25/144
  EXPECT_NEAR(losses.importance, 2 * ((0.25 + 0.5625) / 3 - 25.0 / 144) / (25.0 / 144), 1e-6);
  EXPECT_EQ(losses.load, 0);
  EXPECT_EQ(losses.consistency, 0);
}

TEST(GateLosses, AnEvenLoadOfSeveralChoicesCostsTheBalanceWeight) {
  // Token t likes experts t and t + 1 equally.
  std::vector<float> logits(16, 0.0f);
  for (std::size_t t = 0; t < 4; ++t) logits[t * 4 + t] = logits[t * 4 + (t + 1) % 4] = 3;
  RouterOfLogits router({.name = "top_k", .num_experts = 4, .top_k = 2, .balance_loss = 0.5, .importance_loss = 1});
  const AuxiliaryLosses losses = router.route({.samples = 4}, logits.data()).losses;
  EXPECT_NEAR(losses.balance, 0.5, 1e-6);
  EXPECT_NEAR(losses.importance, 0, 1e-6);
}

TEST(GateLosses, RoutersHaveTheirOwn) {
  const std::vector<float> logits = random_floats(40, 1);
  for (const RouterRow& row : router_table()) {
    if (!row.learned) continue;
    RouterOfLogits router({.name = row.name, .num_experts = 4});
    const AuxiliaryLosses losses = router.route({.samples = 10}, logits.data()).losses;
    const std::string name = row.name;
    EXPECT_EQ(losses.balance > 0, name == "switch" || name == "top_k") << name;
    EXPECT_EQ(losses.importance > 0, name == "noisy_top_k") << name;
    EXPECT_EQ(losses.load > 0, name == "noisy_top_k") << name;
    EXPECT_EQ(losses.z, 0) << name;
  }
}

}  // namespace
}  // namespace switchyard::testing
