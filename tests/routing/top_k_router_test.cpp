// Top-k routing against its equation in double precision, logits given.
#include <gtest/gtest.h>

#include <cmath>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kTokens = 40, kExperts = 6;

struct Case {
  Index top_k;
  const char* scores;
  bool renormalise;
};

TEST(TopKRouter, TakesTheBestInOrderWithTheirScoresAsWeights) {
  const std::vector<float> logits = random_floats(kTokens * kExperts, 1);
  for (const Case& c : {Case{1, "softmax", false},
                        {2, "softmax", false},
                        {3, "softmax", true},
                        {6, "softmax", true},
                        {2, "sigmoid", false},
                        {3, "sigmoid", true}}) {
    SCOPED_TRACE(std::to_string(c.top_k) + " by " + c.scores + (c.renormalise ? ", renormalised" : ""));
    RouterOfLogits router(
        {.name = "top_k", .num_experts = kExperts, .top_k = c.top_k, .scores = c.scores, .renormalise = c.renormalise});
    const Routes routes = router.route({.samples = kTokens}, logits.data());
    expect_consistent(routes);
    ASSERT_EQ(routes.top_k, c.top_k);
    for (Index t = 0; t < kTokens; ++t) {
      const float* z = &logits[static_cast<std::size_t>(t * kExperts)];
      std::vector<std::int32_t> order(static_cast<std::size_t>(kExperts));
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](auto a, auto b) { return z[a] > z[b]; });
      const bool is_sigmoid = std::string(c.scores) == "sigmoid";
      double all = 0, chosen = 0;
      for (Index e = 0; e < kExperts; ++e) all += std::exp(double{z[e]});
      const auto score = [&](std::int32_t e) {
        return is_sigmoid ? 1 / (1 + std::exp(-double{z[e]})) : std::exp(double{z[e]}) / all;
      };
      for (Index j = 0; j < c.top_k; ++j) chosen += score(order[static_cast<std::size_t>(j)]);
      for (Index j = 0; j < c.top_k; ++j) {
        const auto a = static_cast<std::size_t>(t * c.top_k + j);
        EXPECT_EQ(routes.experts[a], order[static_cast<std::size_t>(j)]) << "token " << t << ", choice " << j;
        EXPECT_NEAR(routes.weights[a], score(routes.experts[a]) / (c.renormalise ? chosen : 1), 1e-6);
      }
    }
  }
}

TEST(TopKRouter, RenormalisedWeightsSumToOne) {
  // Far apart as well: the scores of the chosen may be too small for a float.
  std::vector<float> logits = random_floats(kTokens * kExperts, 2);
  for (float& z : logits) z *= 200;
  for (const Index top_k : {1, 2, 4}) {
    RouterOfLogits router({.name = "top_k", .num_experts = kExperts, .top_k = top_k, .renormalise = true});
    const Routes routes = router.route({.samples = kTokens}, logits.data());
    for (std::size_t t = 0; t < kTokens; ++t) {
      const auto first = routes.weights.begin() + static_cast<std::ptrdiff_t>(t) * top_k;
      const double sum = std::accumulate(first, first + top_k, 0.0);
      EXPECT_NEAR(sum, 1, 1e-6);
      if (top_k == 1) {
        EXPECT_EQ(sum, 1) << "exactly, as upcycling needs";
      }
    }
  }
}

TEST(TopKRouter, TheLowerExpertWinsATie) {
  const std::vector<float> logits(static_cast<std::size_t>(kExperts), 0.5f);
  RouterOfLogits router({.name = "top_k", .num_experts = kExperts, .top_k = 3});
  EXPECT_EQ(router.route({}, logits.data()).experts, (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(TopKRouter, JitterAndDropoutOfTheInputAreOnInTrainingOnlyAndKeyedByPlace) {
  const std::vector<float> x = random_floats(kTokens * kExperts, 3);
  RouterOfLogits router({.name = "top_k", .num_experts = kExperts, .gate_jitter = 0.3, .gate_dropout = 0.3});
  RouterOfLogits plain({.name = "top_k", .num_experts = kExperts});
  const auto weights = [&](const Place& place) { return router.route(place, x.data()).weights; };
  const Place all{.samples = kTokens};
  EXPECT_NE(weights(all), plain.route(all, x.data()).weights);
  Place evaluation = all;
  evaluation.training = false;
  EXPECT_EQ(weights(evaluation), plain.route(evaluation, x.data()).weights);
  for (const Place& other : {Place{.samples = kTokens, .step = 1},
                             {.samples = kTokens, .layer = 1},
                             {.samples = kTokens, .seed = 9},
                             {.samples = kTokens, .first_sample = 1}})
    EXPECT_NE(weights(other), weights(all));
  std::vector<float> in_parts;
  for (Index first = 0; first < kTokens; first += 8) {
    const auto part =
        router.route({.samples = 8, .first_sample = first}, &x[static_cast<std::size_t>(first * kExperts)]);
    in_parts.insert(in_parts.end(), part.weights.begin(), part.weights.end());
  }
  EXPECT_EQ(in_parts, weights(all));
}

}  // namespace
}  // namespace switchyard::testing
