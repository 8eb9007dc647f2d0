// Noisy top-k: where its noise is and is not. (Its equations: kernels/noisy_gate_test and the golden files.)
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kExperts = 5, kSamples = 12, kTokensPerSample = 3, kTokens = kSamples * kTokensPerSample;
const RouterOptions kOptions{.name = "noisy_top_k", .num_experts = kExperts, .top_k = 2};

TEST(NoisyTopKRouter, StartsAtZeroWithoutBias) {
  RouterOptions options = kOptions;
  options.width = 7;
  RouterUnderTest router(options);
  const ParameterTable& table = router.parameters().table();
  ASSERT_EQ(table.size(), 2);
  EXPECT_EQ(table[0].name, "gate.weight");
  EXPECT_EQ(table[1].name, "gate.noise");
  for (Index i = 0; i < router.parameters().size(); ++i) EXPECT_EQ(router.parameters().values()[i], 0);
  // So that noise alone decides, and every expert is tried.
  const std::vector<float> x = random_floats(600 * 7, 1);
  const Routes routes = router.route({.samples = 600}, x.data());
  for (const std::int32_t tokens : routes.tokens_per_expert) EXPECT_NEAR(tokens, 240, 5 * std::sqrt(240 * 0.6));
}

TEST(NoisyTopKRouter, EvaluationIsTopKWithoutNoise) {
  const std::vector<float> x = random_floats(kTokens * kExperts, 2);
  RouterOfLogits router(kOptions);
  RouterOfLogits plain({.name = "top_k", .num_experts = kExperts, .top_k = 2, .renormalise = true});
  for (const Index step : {0, 1}) {
    const Place place{.samples = kTokens, .step = step, .training = false};
    const Routes found = router.route(place, x.data()), expected = plain.route(place, x.data());
    expect_consistent(found);
    EXPECT_EQ(found.experts, expected.experts);
    EXPECT_EQ(found.weights, expected.weights);
    EXPECT_EQ(found.losses, AuxiliaryLosses{});
  }
}

TEST(NoisyTopKRouter, NoiseIsKeyedByPlaceNotByMicrobatch) {
  const std::vector<float> x = random_floats(kTokens * kExperts, 3);
  RouterOfLogits router(kOptions);
  const auto routes_of = [&](Index microbatch, Place place) {
    std::pair<std::vector<std::int32_t>, std::vector<float>> all;
    place.samples = microbatch;
    place.tokens_per_sample = kTokensPerSample;
    for (place.first_sample = 0; place.first_sample < kSamples; place.first_sample += microbatch) {
      const Routes part =
          router.route(place, &x[static_cast<std::size_t>(place.first_sample * kTokensPerSample * kExperts)]);
      all.first.insert(all.first.end(), part.experts.begin(), part.experts.end());
      all.second.insert(all.second.end(), part.weights.begin(), part.weights.end());
    }
    return all;
  };
  const auto reference = routes_of(kSamples, {});
  for (const Index microbatch : {1, 2, 3, 6}) EXPECT_EQ(routes_of(microbatch, {}), reference) << microbatch;
  EXPECT_NE(routes_of(kSamples, {.layer = 1}), reference);
  EXPECT_NE(routes_of(kSamples, {.step = 1}), reference);
  EXPECT_NE(routes_of(kSamples, {.seed = 2}), reference);
}

TEST(NoisyTopKRouter, WeightsOfATokenSumToOne) {
  const std::vector<float> x = random_floats(kTokens * kExperts, 4);
  RouterOfLogits router(kOptions);
  const Routes routes = router.route({.samples = kTokens}, x.data());
  for (std::size_t t = 0; t < kTokens; ++t) EXPECT_NEAR(routes.weights[2 * t] + routes.weights[2 * t + 1], 1, 1e-6);
}

TEST(NoisyTopKRouter, ItsOwnLossesAreImportanceAndLoad) {
  const std::vector<float> x = random_floats(kTokens * kExperts, 5);
  RouterOfLogits own(kOptions);
  const AuxiliaryLosses losses = own.route({.samples = kTokens}, x.data()).losses;
  EXPECT_GT(losses.importance, 0);
  EXPECT_GT(losses.load, 0);
  EXPECT_EQ(losses.balance, 0);
  RouterOptions doubled = kOptions;
  doubled.importance_loss = doubled.load_loss = 0.2;
  RouterOfLogits other(doubled);
  const AuxiliaryLosses twice = other.route({.samples = kTokens}, x.data()).losses;
  EXPECT_NEAR(twice.importance, 2 * losses.importance, 1e-9);
  EXPECT_NEAR(twice.load, 2 * losses.load, 1e-9);
  // Where every expert is chosen nothing is left to be balanced.
  RouterOptions all = kOptions;
  all.top_k = kExperts;
  RouterOfLogits every(all);
  EXPECT_EQ(every.route({.samples = kTokens}, x.data()).losses.load, 0);
}

}  // namespace
}  // namespace switchyard::testing
