// The statistics of a load against their closed forms.
#include "routing/load.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace switchyard {
namespace {

constexpr double kTolerance = 1e-12;

LoadBalance balance_of(const std::vector<float>& tokens) { return load_balance(tokens); }

TEST(LoadBalance, OfAnEvenLoad) {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{64}}) {
    const LoadBalance balance = balance_of(std::vector<float>(experts, 3));
    EXPECT_EQ(balance.variation, 0);
    EXPECT_EQ(balance.max_over_mean, 1);
    EXPECT_NEAR(balance.entropy, std::log(static_cast<double>(experts)), kTolerance);
    EXPECT_EQ(balance.dead, 0);
  }
}

// One expert has everything: variation sqrt(E - 1), max/mean E.
TEST(LoadBalance, OfACollapse) {
  for (const std::size_t experts : {std::size_t{2}, std::size_t{5}, std::size_t{16}}) {
    std::vector<float> tokens(experts, 0);
    tokens[experts / 2] = 1000;
    const LoadBalance balance = balance_of(tokens);
    const double count = static_cast<double>(experts);
    EXPECT_NEAR(balance.variation, std::sqrt(count - 1), kTolerance);
    EXPECT_NEAR(balance.max_over_mean, count, kTolerance);
    EXPECT_EQ(balance.entropy, 0);
    EXPECT_NEAR(balance.dead, (count - 1) / count, kTolerance);
  }
}

// 4, 2, 1, 1, 0, 0, 0, 0: mean 1, squares 9 + 1 + 4 over 8 experts, entropy (1/2 + 1/2 + 3/8 + 3/8) ln 2.
TEST(LoadBalance, OfHalvings) {
  const LoadBalance balance = balance_of({4, 0, 2, 0, 1, 0, 1, 0});
  EXPECT_NEAR(balance.variation, std::sqrt(14.0 / 8), kTolerance);
  EXPECT_NEAR(balance.max_over_mean, 4, kTolerance);
  EXPECT_NEAR(balance.entropy, 1.75 * std::log(2.0), kTolerance);
  EXPECT_NEAR(balance.dead, 0.5, kTolerance);
}

TEST(LoadBalance, WithoutTokensIsZero) {
  for (const std::size_t experts : {std::size_t{0}, std::size_t{1}, std::size_t{4}}) {
    const LoadBalance balance = balance_of(std::vector<float>(experts, 0));
    EXPECT_EQ(balance.variation, 0);
    EXPECT_EQ(balance.max_over_mean, 0);
    EXPECT_EQ(balance.entropy, 0);
    EXPECT_EQ(balance.dead, 0);
  }
}

TEST(RoutingLoad, GivesTheTokensOfALayer) {
  RoutingLoad load;
  load.layers = 2, load.experts = 3, load.tokens = {1, 2, 3, 4, 5, 6};
  const auto tokens = tokens_of_layer(load, 1);
  EXPECT_EQ(std::vector<float>(tokens.begin(), tokens.end()), (std::vector<float>{4, 5, 6}));
}

}  // namespace
}  // namespace switchyard
