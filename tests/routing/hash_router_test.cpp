// Hash routing: a fixed function of position or content, another one in each layer.
#include <gtest/gtest.h>

#include "kernels/api/embedding.hpp"
#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kExperts = 4, kTokensPerSample = 17;

RouterOptions hash_of(const std::string& what) { return {.name = "hash", .num_experts = kExperts, .hash = what}; }

// The experts of one sample's tokens; a router of its own for each question, as each layer has.
std::vector<std::int32_t> of_positions(Place place) {
  RouterUnderTest router(hash_of("position"));
  place.tokens_per_sample = kTokensPerSample;
  return router.route(place).experts;
}

TEST(HashRouter, PositionsAreDealtOutEvenly) {
  RouterUnderTest router(hash_of("position"));
  for (const Index samples : {0, 1, 5}) {
    const Routes routes = router.route({.samples = samples, .tokens_per_sample = kTokensPerSample});
    expect_consistent(routes);
    EXPECT_TRUE(routes.weights.empty());
    EXPECT_TRUE(routes.same_counts_everywhere);
    const auto n = static_cast<std::int32_t>(samples);
    EXPECT_EQ(routes.tokens_per_expert, (std::vector<std::int32_t>{5 * n, 4 * n, 4 * n, 4 * n}));
    for (std::size_t t = kTokensPerSample; t < routes.experts.size(); ++t)
      EXPECT_EQ(routes.experts[t], routes.experts[t % kTokensPerSample]) << "another sample, the same place";
  }
  EXPECT_EQ(router.parameters().size(), 0);
  EXPECT_FALSE(router.router().needs_weight_gradients());
}

TEST(HashRouter, PositionsHaveOneExpertForever) {
  const std::vector<std::int32_t> reference = of_positions({});
  EXPECT_EQ(of_positions({.first_sample = 3, .step = 7}), reference);
  EXPECT_EQ(of_positions({.training = false}), reference);
  EXPECT_NE(of_positions({.layer = 1}), reference);
  EXPECT_NE(of_positions({.layer = 2}), of_positions({.layer = 1}));
  EXPECT_NE(of_positions({.seed = 2}), reference);
}

TEST(HashRouter, EveryPlaceMeetsEveryExpertInSomeLayer) {
  std::vector<std::vector<Index>> met(kTokensPerSample, std::vector<Index>(kExperts));
  for (Index layer = 0; layer < 64; ++layer) {
    const std::vector<std::int32_t> experts = of_positions({.layer = layer});
    for (std::size_t t = 0; t < kTokensPerSample; ++t) ++met[t][static_cast<std::size_t>(experts[t])];
  }
  for (const auto& of_place : met)
    for (const Index times : of_place) EXPECT_GT(times, 3);
}

TEST(HashRouter, TheSameWordGoesToTheSameExpert) {
  std::vector<std::int32_t> words;
  for (Index i = 0; i < 3 * kernels::kNumWords; ++i)
    words.push_back(static_cast<std::int32_t>(i * 7 % kernels::kNumWords));
  const auto of_words = [&](Place place) {
    RouterUnderTest router(hash_of("content"));
    place.samples = static_cast<Index>(words.size());
    place.words = words.data();
    const Routes routes = router.route(place);
    expect_consistent(routes);
    EXPECT_FALSE(routes.same_counts_everywhere);
    return routes.experts;
  };
  const std::vector<std::int32_t> reference = of_words({});
  std::vector<std::int32_t> expert_of_word(static_cast<std::size_t>(kernels::kNumWords), -1);
  for (std::size_t t = 0; t < words.size(); ++t) {
    std::int32_t& expert = expert_of_word[static_cast<std::size_t>(words[t])];
    EXPECT_TRUE(expert < 0 || expert == reference[t]) << "word " << words[t];
    expert = reference[t];
  }
  std::sort(expert_of_word.begin(), expert_of_word.end());
  EXPECT_EQ(std::unique(expert_of_word.begin(), expert_of_word.end()) - expert_of_word.begin(), kExperts);
  EXPECT_EQ(of_words({.step = 5, .training = false}), reference);
  EXPECT_NE(of_words({.layer = 1}), reference);
  EXPECT_NE(of_words({.seed = 2}), reference);
}

}  // namespace
}  // namespace switchyard::testing
