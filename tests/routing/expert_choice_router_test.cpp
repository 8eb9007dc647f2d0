// Expert choice: every expert takes exactly its number of tokens, the ones with its largest scores.
#include <gtest/gtest.h>

#include <cmath>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kExperts = 4, kTokens = 22;

struct Case {
  double train, eval;
  Index tokens;
  Index in_training, in_evaluation;  // tokens of each expert
};

TEST(ExpertChoiceRouter, EveryExpertTakesExactlyItsCapacity) {
  const std::vector<float> x = random_floats(kTokens * kExperts, 1);
  for (const Case& c : {Case{0, 0, 22, 11, 11},      // two experts a token, of its own
                        Case{1, 1.5, 22, 5, 8},      // floor
                        Case{4, 3.9, 22, 22, 21},    // every expert takes all
                        Case{0.01, 0.01, 22, 1, 1},  // at least one
                        Case{1, 1, 2, 1, 1}, Case{2, 2, 1, 1, 1}}) {
    for (const bool training : {true, false}) {
      RouterOfLogits router(
          {.name = "expert_choice", .num_experts = kExperts, .capacity_train = c.train, .capacity_eval = c.eval});
      const Routes routes = router.route({.samples = c.tokens, .training = training}, x.data());
      expect_consistent(routes);
      EXPECT_EQ(
          routes.tokens_per_expert,
          std::vector<std::int32_t>(kExperts, static_cast<std::int32_t>(training ? c.in_training : c.in_evaluation)))
          << c.train << ", " << c.eval << ", " << c.tokens << (training ? " in training" : " in evaluation");
      EXPECT_EQ(routes.same_counts_everywhere, training);
    }
  }
}

TEST(ExpertChoiceRouter, TakesTheBestTokensWithTheirScoresAsWeights) {
  const std::vector<float> x = random_floats(kTokens * kExperts, 2);
  RouterOfLogits router({.name = "expert_choice", .num_experts = kExperts, .capacity_train = 1});
  const Routes routes = router.route({.samples = kTokens}, x.data());
  Index without = 0;
  for (Index e = 0; e < kExperts; ++e) {
    double least_taken = 2, most_left = -1;
    for (Index t = 0; t < kTokens; ++t) {
      const auto a = static_cast<std::size_t>(t * kExperts + e);
      double sum = 0;
      for (Index i = 0; i < kExperts; ++i) sum += std::exp(double{x[static_cast<std::size_t>(t * kExperts + i)]});
      const double score = std::exp(double{x[a]}) / sum;
      const bool taken = routes.experts[a] >= 0;
      EXPECT_EQ(routes.experts[a], taken ? e : -1);
      EXPECT_NEAR(routes.weights[a], taken ? score : 0, 1e-6);
      if (taken)
        least_taken = std::min(least_taken, score);
      else
        most_left = std::max(most_left, score);
    }
    EXPECT_GT(least_taken, most_left) << "expert " << e;
  }
  for (Index t = 0; t < kTokens; ++t) {
    const auto first = routes.experts.begin() + t * kExperts;
    without += std::all_of(first, first + kExperts, [](std::int32_t e) { return e < 0; });
  }
  EXPECT_GT(without, 0) << "every token was taken: the residual's part is not seen";
}

TEST(ExpertChoiceRouter, RoutesAMicrobatchWithoutTokens) {
  RouterOfLogits router({.name = "expert_choice", .num_experts = kExperts});
  const Routes routes = router.route({.samples = 0, .training = false});
  expect_consistent(routes);
  EXPECT_EQ(routes.tokens_per_expert, std::vector<std::int32_t>(kExperts, 0));
}

}  // namespace
}  // namespace switchyard::testing
