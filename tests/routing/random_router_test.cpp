// Random routing: what each granularity means, and that draws are a function of seed, step and place alone.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "routing/route_one.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kExperts = 4, kTokens = 5;

RouterUnderTest random_router(const std::string& granularity, Index num_experts = kExperts) {
  return {"random", granularity, num_experts};
}

// Experts of a batch of `samples`, asked for in microbatches of `microbatch`.
std::vector<std::int32_t> experts_of_batch(const std::string& granularity, Index samples, Index microbatch,
                                           Place place = {}) {
  RouterUnderTest router = random_router(granularity);
  place.tokens_per_sample = kTokens;
  std::vector<std::int32_t> experts;
  for (place.first_sample = 0; place.first_sample < samples; place.first_sample += microbatch) {
    place.samples = std::min(microbatch, samples - place.first_sample);
    const Routes routes = router.route(place);
    experts.insert(experts.end(), routes.experts.begin(), routes.experts.end());
  }
  return experts;
}

TEST(RandomRouter, PlansAreConsistentAndWeightsAreOne) {
  for (const char* granularity : {"batch", "sample", "token", "balanced"}) {
    RouterUnderTest router = random_router(granularity);
    for (Index samples : {0, 1, 13}) {
      const Routes routes = router.route({.samples = samples, .tokens_per_sample = kTokens});
      expect_consistent(routes);
      EXPECT_TRUE(routes.weights.empty());
      EXPECT_EQ(routes.auxiliary, 0);
    }
    EXPECT_FALSE(router.router().needs_weight_gradients());
    EXPECT_EQ(router.parameters().size(), 0);
  }
}

TEST(RandomRouter, OneExpertForTheBatch) {
  const std::vector<std::int32_t> experts = experts_of_batch("batch", 12, 4);
  EXPECT_EQ(std::set(experts.begin(), experts.end()).size(), 1u);
}

TEST(RandomRouter, EachPassOverTheBatchHasADrawOfItsOwn) {
  RouterUnderTest router = random_router("batch");
  Index num_different = 0;
  for (Index step = 0; step < 40; ++step) {
    const Place once{.samples = 3, .tokens_per_sample = kTokens, .step = step};
    Place twice = once, later = once;
    twice.samples = later.samples = 6;
    twice.passes = later.passes = 2;
    later.first_sample = 18;
    const Routes routes = router.route(twice);
    EXPECT_TRUE(routes.same_counts_everywhere);
    for (std::size_t token = 0; token < routes.experts.size(); ++token)
      EXPECT_EQ(routes.experts[token], token < 3 * kTokens ? routes.experts.front() : routes.experts.back());
    EXPECT_EQ(routes.experts.front(), router.route(once).experts.front());
    EXPECT_EQ(router.route(later).experts, routes.experts) << "of another microbatch";
    num_different += routes.experts.front() != routes.experts.back();
  }
  EXPECT_NEAR(static_cast<double>(num_different), 40.0 * (kExperts - 1) / kExperts,
              9);  // three standard deviations: 8.2
}

TEST(RandomRouter, OneExpertForEachSample) {
  const std::vector<std::int32_t> experts = experts_of_batch("sample", 40, 4);
  for (std::size_t token = 0; token < experts.size(); ++token)
    EXPECT_EQ(experts[token], experts[token / kTokens * kTokens]) << token;
  EXPECT_EQ(std::set(experts.begin(), experts.end()).size(), static_cast<std::size_t>(kExperts));
}

TEST(RandomRouter, TokensOfOneSampleGoSeparateWays) {
  const std::vector<std::int32_t> experts = experts_of_batch("token", 40, 4);
  Index mixed_samples = 0;
  for (std::size_t first = 0; first < experts.size(); first += kTokens)
    mixed_samples += std::set(&experts[first], &experts[first] + kTokens).size() > 1;
  EXPECT_GT(mixed_samples, 35);
}

TEST(RandomRouter, BalancedGivesEachExpertItsShare) {
  RouterUnderTest router = random_router("balanced");
  for (Index samples : {1, 2, 3, 4, 7}) {
    const Routes routes = router.route({.samples = samples, .tokens_per_sample = kTokens});
    for (Index expert = 0; expert < kExperts; ++expert)
      EXPECT_EQ(routes.tokens_per_expert[static_cast<std::size_t>(expert)],
                samples * kTokens / kExperts + (expert < samples * kTokens % kExperts))
          << samples << " samples, expert " << expert;
  }
}

TEST(RandomRouter, RanksKnowCountsWithoutAskingWhereTheyAreAllTheSame) {
  for (const auto& [granularity, known] :
       {std::pair{"batch", true}, {"sample", false}, {"token", false}, {"balanced", true}}) {
    RouterUnderTest router = random_router(granularity);
    const Place microbatch{.samples = 4, .tokens_per_sample = kTokens};
    EXPECT_EQ(router.route(microbatch).same_counts_everywhere, known) << granularity;
    // The last microbatch of a test set is shorter than those of other ranks.
    Place evaluation = microbatch;
    evaluation.training = false;
    EXPECT_FALSE(router.route(evaluation).same_counts_everywhere) << granularity;
    if (!known) continue;
    Place elsewhere = microbatch;
    elsewhere.first_sample = 8;
    EXPECT_EQ(router.route(elsewhere).tokens_per_expert, router.route(microbatch).tokens_per_expert) << granularity;
  }
}

TEST(RandomRouter, TheCutIntoMicrobatchesDoesNotMatter) {
  for (const char* granularity : {"batch", "sample", "token"})
    for (Index microbatch : {1, 2, 3, 6})
      EXPECT_EQ(experts_of_batch(granularity, 12, microbatch), experts_of_batch(granularity, 12, 12))
          << granularity << " in microbatches of " << microbatch;
}

TEST(RandomRouter, DrawsFollowSeedAndStepAndKindButNotLayer) {
  for (const char* granularity : {"batch", "sample", "token", "balanced"}) {
    // The draws of 64 steps: a batch has a single draw a step, which may be the same by chance.
    const auto draws = [&](Place place) {
      std::vector<std::int32_t> experts;
      for (Index step = 0; step < 64; ++step, ++place.step) {
        const auto of_step = experts_of_batch(granularity, 4, 2, place);
        experts.insert(experts.end(), of_step.begin(), of_step.end());
      }
      return experts;
    };
    const std::vector<std::int32_t> reference = draws({});
    EXPECT_EQ(draws({}), reference) << granularity;
    EXPECT_EQ(draws({.layer = 3}), reference) << granularity;
    EXPECT_NE(draws({.step = 64}), reference) << granularity;
    EXPECT_NE(draws({.seed = 2}), reference) << granularity;
    EXPECT_NE(draws({.training = false}), reference) << granularity;
  }
}

TEST(RandomRouter, EachLayerDrawsForItselfWhereAsked) {
  for (const char* granularity : {"batch", "sample", "token", "balanced"}) {
    RouterUnderTest router(
        RouterOptions{.name = "random", .num_experts = kExperts, .granularity = granularity, .draw = "layer"});
    const auto draws = [&](Index layer) {
      std::vector<std::int32_t> experts;
      for (Index step = 0; step < 64; ++step) {
        const auto of_step = router.route({.samples = 2, .tokens_per_sample = kTokens, .layer = layer, .step = step});
        experts.insert(experts.end(), of_step.experts.begin(), of_step.experts.end());
      }
      return experts;
    };
    EXPECT_EQ(draws(1), draws(1)) << granularity;
    EXPECT_NE(draws(0), draws(1)) << granularity;
    EXPECT_NE(draws(1), draws(2)) << granularity;
  }
}

// Each count within five standard deviations of its mean.
void expect_uniform(const std::vector<std::int32_t>& experts, Index num_experts, const std::string& what) {
  std::vector<Index> counts(static_cast<std::size_t>(num_experts));
  for (std::int32_t expert : experts) ++counts[static_cast<std::size_t>(expert)];
  const double n = static_cast<double>(experts.size()), p = 1.0 / static_cast<double>(num_experts);
  for (Index count : counts) EXPECT_NEAR(static_cast<double>(count), n * p, 5 * std::sqrt(n * p * (1 - p))) << what;
}

TEST(RandomRouter, EveryExpertIsEquallyLikely) {
  for (Index num_experts : {2, 3, 8}) {
    std::vector<std::int32_t> by_batch;
    RouterUnderTest batch = random_router("batch", num_experts);
    for (Index step = 0; step < 4000; ++step) by_batch.push_back(batch.route({.step = step}).experts[0]);
    expect_uniform(by_batch, num_experts, "batch");
    const Place many{.samples = 8000};
    expect_uniform(random_router("sample", num_experts).route(many).experts, num_experts, "sample");
    expect_uniform(random_router("token", num_experts).route(many).experts, num_experts, "token");
  }
}

TEST(RandomRouter, BalancedIsAUniformPermutation) {
  // Each of the 4 tokens takes each of the 4 experts equally often, and so does each ordered pair of tokens.
  RouterUnderTest router = random_router("balanced");
  std::vector<std::int32_t> by_token[4], pairs;
  for (Index step = 0; step < 6000; ++step) {
    const std::vector<std::int32_t> experts = router.route({.samples = 4, .step = step}).experts;
    for (std::size_t token = 0; token < 4; ++token) by_token[token].push_back(experts[token]);
    // Experts of tokens 0 and 3, numbered among the 12 pairs of different experts.
    pairs.push_back(experts[0] * 3 + experts[3] - (experts[3] > experts[0]));
  }
  for (std::size_t token = 0; token < 4; ++token) expect_uniform(by_token[token], 4, "token " + std::to_string(token));
  expect_uniform(pairs, 12, "pairs");
}

TEST(RouterTable, UnknownNamesAreErrors) {
  const auto error_of = [](const char* name, const char* granularity) {
    try {
      RouterUnderTest(name, granularity, 4, 3);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string unknown = error_of("nearest", "batch");
  EXPECT_TRUE(contains(unknown, "ffn.router: there is no router \"nearest\"; there are ")) << unknown;
  for (const RouterRow& row : router_table()) EXPECT_TRUE(contains(unknown, row.name)) << unknown;
  EXPECT_EQ(error_of("random", "layer"), "ffn.granularity: \"layer\" is not one of batch, sample, token, balanced");
  EXPECT_EQ(error_of("switch", ""), "");
}

}  // namespace
}  // namespace switchyard::testing
