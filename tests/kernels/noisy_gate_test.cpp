#include <algorithm>
#include <numbers>

#include "core/error.hpp"
#include "kernel_test.hpp"
#include "kernels/api/gate.hpp"

namespace switchyard::kernels {
namespace {

constexpr RandomKey kKey{.seed = 0x0123456789abcdef, .purpose = Purpose::kGateNoise, .layer = 2, .step = 11};
constexpr std::uint32_t kFirstRow = 4294967200u;

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double cdf(double u) { return std::erfc(-u / std::numbers::sqrt2) / 2; }

// expert[e]: whose noisy logit is e's threshold, the top_k-th largest of the others.
std::vector<std::size_t> threshold_experts(const Doubles& noisy, std::size_t top_k) {
  std::vector<std::size_t> experts;
  for (std::size_t e = 0; e < noisy.size(); ++e) {
    std::vector<std::size_t> others;
    for (std::size_t other = 0; other < noisy.size(); ++other)
      if (other != e) others.push_back(other);
    std::stable_sort(others.begin(), others.end(), [&](auto a, auto b) { return noisy[a] > noisy[b]; });
    experts.push_back(others[top_k - 1]);
  }
  return experts;
}

struct Shape {
  Index tokens, num_experts;
  float floor;
};
class NoisyGateCases : public testing::TestWithParam<Shape> {
 protected:
  const Index tokens = GetParam().tokens, num_experts = GetParam().num_experts, size = tokens * num_experts;
  const float floor = GetParam().floor;
  const Floats clean = random_floats(size, 1, 3), raw = random_floats(size, 2, 2), noise = random_floats(size, 3, 2);
  const Floats noisy = [this] {
    Floats values = clean;
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(clean[i] + noise[i] * deviation(raw[i]));
    return values;
  }();

  double deviation(double x) const { return softplus(x) + double{floor}; }
  Doubles row(const Floats& values, Index token) const {
    return {values.begin() + token * num_experts, values.begin() + (token + 1) * num_experts};
  }
  std::vector<Index> top_ks() const {
    std::vector<Index> values;
    for (const Index top_k : {Index{1}, Index{2}, Index{3}, num_experts - 1})
      if (top_k >= 1 && top_k < num_experts) values.push_back(top_k);
    return values;
  }
};

TEST_P(NoisyGateCases, NoiseIsTheDocumentedFunctionOfTokenAndExpert) {
  Floats wide = raw;  // far into both tails of softplus
  for (std::size_t i = 0; i < wide.size(); i += 3) wide[i] *= 60;
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output own_noise(size), own_noisy(size);
    noisy_logits(context, {.tokens = tokens,
                           .num_experts = num_experts,
                           .floor = floor,
                           .clean = clean.data(),
                           .raw = wide.data(),
                           .key = kKey,
                           .first_row = kFirstRow,
                           .noise = own_noise.data(),
                           .noisy = own_noisy.data()});
    return {own_noise.values(), own_noisy.values()};
  });
  Doubles expected_noise, expected_noisy;
  for (Index t = 0; t < tokens; ++t)
    for (Index e = 0; e < num_experts; ++e) {
      const auto words =
          random_words(kKey, kFirstRow + static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(e / 2));
      const auto first = static_cast<std::size_t>(2 * (e % 2)), i = static_cast<std::size_t>(t * num_experts + e);
      const double u1 = to_unit_float(words[first]), u2 = to_unit_float(words[first + 1]);
      expected_noise.push_back(std::sqrt(-2 * std::log(1 - u1)) * std::cos(2 * std::numbers::pi * u2));
      expected_noisy.push_back(clean[i] + expected_noise.back() * deviation(wide[i]));
    }
  expect_near(outputs[0], expected_noise, 1e-6, "noise");
  expect_near(outputs[1], expected_noisy, 4e-6, "noisy");
}

TEST_P(NoisyGateCases, LoadProbabilityMatchesTheReference) {
  for (const Index top_k : top_ks()) {
    const Floats probability = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output out(size);
      load_probability(context, {.tokens = tokens,
                                 .num_experts = num_experts,
                                 .top_k = top_k,
                                 .floor = floor,
                                 .clean = clean.data(),
                                 .raw = raw.data(),
                                 .noisy = noisy.data(),
                                 .probability = out.data()});
      return {out.values()};
    })[0];
    Doubles expected;
    for (Index t = 0; t < tokens; ++t) {
      const Doubles of_token = row(noisy, t);
      const auto experts = threshold_experts(of_token, static_cast<std::size_t>(top_k));
      for (std::size_t e = 0; e < experts.size(); ++e) {
        const auto i = static_cast<std::size_t>(t * num_experts) + e;
        expected.push_back(cdf((clean[i] - of_token[experts[e]]) / deviation(raw[i])));
      }
    }
    expect_near(probability, expected, 2e-6, "probability");
  }
}

TEST_P(NoisyGateCases, BackwardMatchesFiniteDifferences) {
  const Floats d_noisy = random_floats(size, 4), d_load = random_floats(num_experts, 5);
  std::vector<Index> all = top_ks();
  all.push_back(0);  // no load loss
  for (const Index top_k : all) {
    SCOPED_TRACE(testing::Message() << "top " << top_k);
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output d_clean(size), d_raw(size), in_place(d_noisy), d_raw_again(size);
      NoisyBackward args{.tokens = tokens,
                         .num_experts = num_experts,
                         .top_k = top_k,
                         .floor = floor,
                         .clean = clean.data(),
                         .raw = raw.data(),
                         .noise = noise.data(),
                         .noisy = noisy.data(),
                         .d_noisy = d_noisy.data(),
                         .d_load = top_k == 0 ? nullptr : d_load.data(),
                         .d_clean = d_clean.data(),
                         .d_raw = d_raw.data()};
      noisy_backward(context, args);
      args.d_noisy = args.d_clean = in_place.data();
      args.d_raw = d_raw_again.data();
      noisy_backward(context, args);
      return {d_clean.values(), d_raw.values(), in_place.values(), d_raw_again.values()};
    });
    EXPECT_TRUE(same_bits(outputs[0], outputs[2]) && same_bits(outputs[1], outputs[3])) << "in place";
    for (Index t = 0; t<tokens; t += tokens> 20 ? 9 : 1) {
      const auto experts =
          top_k == 0 ? std::vector<std::size_t>{} : threshold_experts(row(noisy, t), static_cast<std::size_t>(top_k));
      const Doubles of_noise = row(noise, t);
      const auto count = static_cast<std::size_t>(num_experts);
      const auto losses = [&](const Doubles& clean_and_raw) {  // noisy logits, then probabilities
        Doubles values;
        for (std::size_t e = 0; e < count; ++e)
          values.push_back(clean_and_raw[e] + of_noise[e] * deviation(clean_and_raw[count + e]));
        for (std::size_t e = 0; e < experts.size(); ++e)
          values.push_back(cdf((clean_and_raw[e] - values[experts[e]]) / deviation(clean_and_raw[count + e])));
        return values;
      };
      Doubles x = row(clean, t);
      const Doubles of_raw = row(raw, t);
      x.insert(x.end(), of_raw.begin(), of_raw.end());
      const auto first = t * num_experts, end = first + num_experts;
      Floats d_outputs(d_noisy.begin() + first, d_noisy.begin() + end);
      d_outputs.insert(d_outputs.end(), d_load.begin(), d_load.end());
      Floats actual(outputs[0].begin() + first, outputs[0].begin() + end);
      actual.insert(actual.end(), outputs[1].begin() + first, outputs[1].begin() + end);
      expect_gradient(losses, x, d_outputs, actual, 1e-5, "d_clean, d_raw", num_experts > 20 ? 3 : 1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NoisyGateCases,
                         testing::Values(Shape{0, 3, 0}, Shape{1, 1, 0.01f}, Shape{2, 3, 0}, Shape{17, 4, 0.01f},
                                         Shape{65, 17, 0}, Shape{65, 17, 0.01f}, Shape{600, 8, 0.5f},
                                         Shape{65, 65, 0}));

TEST(NoisyChoices, AreTheLargestNoisyLogits) {
  const RandomKey key{.seed = 11, .purpose = Purpose::kGateNoise, .layer = 2, .step = 3};
  constexpr std::uint32_t kFirst = 40;
  for (const auto& [tokens, experts] : {std::pair<Index, Index>{0, 4}, {1, 1}, {66, 8}, {37, 5}}) {
    const Floats logits = random_floats(tokens * experts, 5), d_weights = random_floats(tokens, 6);
    const auto outputs = on_all_threads([&, tokens = tokens, experts = experts](const Context& context) {
      IntOutput chosen(tokens);
      Output weights(tokens), d_logits(tokens * experts);
      noisy_choice(context, {.tokens = tokens,
                             .num_experts = experts,
                             .logits = logits.data(),
                             .key = key,
                             .first_row = kFirst,
                             .experts = chosen.data(),
                             .weights = weights.data()});
      noisy_choice_backward(context, {.tokens = tokens,
                                      .num_experts = experts,
                                      .experts = chosen.data(),
                                      .d_weights = d_weights.data(),
                                      .d_logits = d_logits.data()});
      return std::vector<Floats>{chosen.floats(), weights.values(), d_logits.values()};
    });
    Floats chosen, weights, d_logits;
    for (Index t = 0; t < tokens; ++t) {
      Index best = 0;
      float largest = -10;
      for (Index e = 0; e < experts; ++e) {
        const auto words = random_words(key, kFirst + static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(e / 4));
        const float noisy =
            logits[static_cast<std::size_t>(t * experts + e)] + to_unit_float(words[static_cast<std::size_t>(e % 4)]);
        if (noisy > largest) best = e, largest = noisy;
      }
      chosen.push_back(static_cast<float>(best));
      weights.push_back(largest);
      for (Index e = 0; e < experts; ++e) d_logits.push_back(e == best ? d_weights[static_cast<std::size_t>(t)] : 0);
    }
    EXPECT_EQ(outputs[0], chosen);
    EXPECT_TRUE(same_bits(outputs[1], weights));
    EXPECT_TRUE(same_bits(outputs[2], d_logits));
  }
}

TEST(NoisyChoices, TakeTheFirstOfEqualsAndSurviveNaN) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats logits = {1e9f, 1e9f, 0, kPoison, kPoison, kPoison};  // noise is lost in 1e9
  IntOutput chosen(2);
  Output weights(2);
  noisy_choice(
      context,
      {.tokens = 2, .num_experts = 3, .logits = logits.data(), .experts = chosen.data(), .weights = weights.data()});
  EXPECT_EQ(chosen.values(), (Ints{0, 0}));
  EXPECT_TRUE(std::isnan(weights.values()[1]));
}

TEST(NoisyGateTest, VanishingNoiseTiesAndNanGiveNoInfinity) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats clean{1, 1, 1, 0, 5, 1e6f}, raw{-200, -200, -30, -200, 0, -200}, noise(6, 0.5f), zeros(6, 0.0f),
      ones(3, 1.0f);
  Output probability(6), d_clean(6), d_raw(6);
  load_probability(context, {.tokens = 2,
                             .num_experts = 3,
                             .top_k = 1,
                             .clean = clean.data(),
                             .raw = raw.data(),
                             .noisy = clean.data(),
                             .probability = probability.data()});
  expect_near(probability.values(), {0.5, 0.5, 0.5, 0, 0, 1}, 1e-6, "probability");
  NoisyBackward args{.tokens = 2,
                     .num_experts = 3,
                     .top_k = 1,
                     .clean = clean.data(),
                     .raw = raw.data(),
                     .noise = noise.data(),
                     .noisy = clean.data(),
                     .d_noisy = zeros.data(),
                     .d_load = ones.data(),
                     .d_clean = d_clean.data(),
                     .d_raw = d_raw.data()};
  noisy_backward(context, args);
  for (const float d : d_clean.values()) EXPECT_TRUE(std::isfinite(d)) << d;
  for (const float d : d_raw.values()) EXPECT_TRUE(std::isfinite(d)) << d;
  const Floats nans(6, kPoison);
  args.clean = args.noisy = nans.data();
  noisy_backward(context, args);
  for (const float d : d_clean.values()) EXPECT_TRUE(std::isnan(d));
}

// Where softplus is exact, 0 far down and x far up, so is its sum with the floor: 0 leaves every bit as it is. Powers
// of two, so that a processor without fused multiply-adds gives the same.
TEST(NoisyGateTest, TheFloorIsAddedToTheDeviation) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats clean = random_floats(6, 1), raw{-200, -200, -200, 64, 64, 64};
  for (const float floor : {0.0f, 64.0f}) {
    Output noise(6), noisy(6);
    noisy_logits(context, {.tokens = 2,
                           .num_experts = 3,
                           .floor = floor,
                           .clean = clean.data(),
                           .raw = raw.data(),
                           .key = kKey,
                           .noise = noise.data(),
                           .noisy = noisy.data()});
    for (std::size_t i = 0; i < 6; ++i) {
      const float deviation = (i < 3 ? 0.0f : 64.0f) + floor;
      EXPECT_EQ(noisy.values()[i], std::fmaf(noise.values()[i], deviation, clean[i])) << floor << ", " << i;
    }
  }
}

// Two experts that are nearly level, whose learned noise has vanished: the slope of the load is that of the floor.
TEST(NoisyGateTest, TheFloorBoundsTheLoadsGradient) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats clean{1, 1}, raw{-15, -15}, noise{0, 0}, zeros(2, 0.0f), d_load{1, -1};
  const auto largest = [&](float floor) {
    Output d_clean(2), d_raw(2);
    noisy_backward(context, {.tokens = 1,
                             .num_experts = 2,
                             .top_k = 1,
                             .floor = floor,
                             .clean = clean.data(),
                             .raw = raw.data(),
                             .noise = noise.data(),
                             .noisy = clean.data(),
                             .d_noisy = zeros.data(),
                             .d_load = d_load.data(),
                             .d_clean = d_clean.data(),
                             .d_raw = d_raw.data()});
    return std::fabs(d_clean.values()[0]);
  };
  const double density = 1 / std::sqrt(2 * std::numbers::pi);
  EXPECT_GT(largest(0), 1e6);
  EXPECT_NEAR(largest(0.01f), 2 * density / 0.01, 0.01);
}

TEST(NoisyGateTest, ALoadOfEveryExpertIsRefused) {
  ThreadPool threads(1);
  EXPECT_THROW(load_probability(test_context(threads), {.tokens = 1, .num_experts = 2, .top_k = 2}), Error);
  const float d_load = 1;
  EXPECT_THROW(noisy_backward(test_context(threads), {.num_experts = 1, .top_k = 1, .d_load = &d_load}), Error);
}

}  // namespace
}  // namespace switchyard::kernels
