#include <algorithm>
#include <numeric>

#include "core/error.hpp"
#include "kernel_test.hpp"
#include "kernels/api/gate.hpp"

namespace switchyard::kernels {
namespace {

struct Choice {
  Floats experts, weights;
};
Choice choose(const Floats& scores, Index num_experts, Index capacity) {
  const auto size = static_cast<Index>(scores.size());
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    IntOutput experts(size);
    Output weights(size);
    expert_choice(context, {.tokens = size / num_experts,
                            .num_experts = num_experts,
                            .capacity = capacity,
                            .scores = scores.data(),
                            .experts = experts.data(),
                            .weights = weights.data()});
    return {experts.floats(), weights.values()};
  });
  return {outputs[0], outputs[1]};
}

// Sorts each expert's tokens: by score, NaN last, the earlier where equal.
Choice reference(const Floats& scores, Index num_experts, Index capacity) {
  Choice choice{Floats(scores.size(), -1.0f), Floats(scores.size(), 0.0f)};
  for (Index e = 0; e < num_experts; ++e) {
    Ints places(scores.size() / static_cast<std::size_t>(num_experts));
    for (std::size_t t = 0; t < places.size(); ++t)
      places[t] = static_cast<std::int32_t>(t * static_cast<std::size_t>(num_experts) + static_cast<std::size_t>(e));
    std::stable_sort(places.begin(), places.end(), [&](std::int32_t a, std::int32_t b) {
      const float x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
      return x > y || (std::isnan(y) && !std::isnan(x));
    });
    for (Index i = 0; i < capacity; ++i) {
      const auto place = static_cast<std::size_t>(places[static_cast<std::size_t>(i)]);
      choice.experts[place] = static_cast<float>(e);
      choice.weights[place] = scores[place];
    }
  }
  return choice;
}

TEST(ExpertChoiceTest, MatchesTheReference) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& [tokens, num_experts] : {std::pair<Index, Index>{0, 3}, {1, 1}, {2, 3}, {17, 4}, {65, 17}, {700, 5}})
    for (const bool odd_values : {false, true}) {
      Floats scores = random_floats(tokens * num_experts, 1);
      if (odd_values)
        for (std::size_t i = 0; i < scores.size(); ++i) {
          const Floats values{0.5f, -0.5f, 0.0f, -0.0f, kPoison, -kPoison, infinity, -infinity, 1e-40f, 0.5f};
          scores[i] = values[random_words({.seed = 2}, 0, static_cast<std::uint32_t>(i))[0] % values.size()];
        }
      for (const Index capacity : {Index{0}, Index{1}, tokens / 3, tokens - 1, tokens}) {
        if (capacity < 0 || capacity > tokens) continue;
        SCOPED_TRACE(testing::Message() << tokens << " x " << num_experts << ", capacity " << capacity);
        const Choice actual = choose(scores, num_experts, capacity),
                     expected = reference(scores, num_experts, capacity);
        ASSERT_EQ(actual.experts, expected.experts);
        ASSERT_TRUE(same_bits(actual.weights, expected.weights));
      }
    }
}

TEST(ExpertChoiceTest, TakesTheEarlierTokenWhereEqual) {
  EXPECT_EQ(choose({1, 5, 1, 5, 1, 5, 2, 5}, 2, 2).experts, (Floats{0, 1, -1, 1, -1, -1, 0, -1}));
}

TEST(ExpertChoiceTest, RefusesMoreTokensThanThereAre) {
  ThreadPool threads(1);
  const Floats scores{1, 2};
  EXPECT_THROW(expert_choice(test_context(threads), {.tokens = 2, .num_experts = 1, .capacity = 3}), Error);
  EXPECT_THROW(expert_choice(test_context(threads), {.tokens = 2, .num_experts = 1, .capacity = -1}), Error);
}

}  // namespace
}  // namespace switchyard::kernels
