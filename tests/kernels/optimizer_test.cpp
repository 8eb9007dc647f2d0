#include "kernels/api/optimizer.hpp"

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

constexpr Index kSizes[] = {0, 1, 2, 3, 17, 65, 1000, 40000};  // the last one is several blocks
constexpr int kSteps = 3;

struct AdamCase {
  float weight_decay;
  bool decoupled;
};

class AdamCases : public testing::TestWithParam<AdamCase> {};

TEST_P(AdamCases, ThreeStepsMatchTheReference) {
  for (const Index size : kSizes) {
    SCOPED_TRACE(size);
    const Floats start = random_floats(size, 1);
    Adam args{.size = size,
              .learning_rate = 0.01f,
              .weight_decay = GetParam().weight_decay,
              .decoupled = GetParam().decoupled,
              .gradient_scale = 0.5f};
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output p(start), m(Floats(start.size(), 0.0f)), v(Floats(start.size(), 0.0f));
      for (args.step = 1; args.step <= kSteps; ++args.step) {
        const Floats gradients = random_floats(size, 10 + static_cast<std::uint32_t>(args.step));
        args.parameters = p.data();
        args.gradients = gradients.data();
        args.first_moments = m.data();
        args.second_moments = v.data();
        adam(context, args);
        synchronize(context);
      }
      return {p.values(), m.values(), v.values()};
    });
    Doubles p = widen(start), m(start.size(), 0.0), v(start.size(), 0.0);
    for (int step = 1; step <= kSteps; ++step) {
      const Floats gradients = random_floats(size, 10 + static_cast<std::uint32_t>(step));
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double decay = args.weight_decay;
        const double g = 0.5 * gradients[i] + (args.decoupled ? 0 : decay * p[i]);
        if (args.decoupled) p[i] -= double{args.learning_rate} * decay * p[i];
        m[i] = args.beta1 * m[i] + (1 - double{args.beta1}) * g;
        v[i] = args.beta2 * v[i] + (1 - double{args.beta2}) * g * g;
        p[i] -= args.learning_rate / (1 - std::pow(double{args.beta1}, step)) * m[i] /
                (std::sqrt(v[i] / (1 - std::pow(double{args.beta2}, step))) + args.epsilon);
      }
    }
    expect_near(outputs[0], p, 1e-6, "parameters");
    expect_near(outputs[1], m, 1e-6, "first moments");
    expect_near(outputs[2], v, 1e-6, "second moments");
  }
}

INSTANTIATE_TEST_SUITE_P(Decays, AdamCases,
                         testing::Values(AdamCase{0, false}, AdamCase{0.1f, false}, AdamCase{0.1f, true}));

TEST(SgdTest, ThreeStepsMatchTheReference) {
  for (const Index size : kSizes) {
    SCOPED_TRACE(size);
    const Floats start = random_floats(size, 1);
    Sgd args{.size = size, .learning_rate = 0.1f, .momentum = 0.9f, .weight_decay = 0.01f, .gradient_scale = 0.5f};
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output p(start), velocity(Floats(start.size(), 0.0f));
      for (int step = 1; step <= kSteps; ++step) {
        const Floats gradients = random_floats(size, 10 + static_cast<std::uint32_t>(step));
        args.parameters = p.data();
        args.gradients = gradients.data();
        args.velocities = velocity.data();
        sgd(context, args);
        synchronize(context);
      }
      return {p.values(), velocity.values()};
    });
    Doubles p = widen(start), velocity(start.size(), 0.0);
    for (int step = 1; step <= kSteps; ++step) {
      const Floats gradients = random_floats(size, 10 + static_cast<std::uint32_t>(step));
      for (std::size_t i = 0; i < p.size(); ++i) {
        velocity[i] = double{args.momentum} * velocity[i] + 0.5 * gradients[i] + double{args.weight_decay} * p[i];
        p[i] -= args.learning_rate * velocity[i];
      }
    }
    expect_near(outputs[0], p, 1e-6, "parameters");
    expect_near(outputs[1], velocity, 1e-6, "velocities");
  }
}

// A sharded optimiser updates pieces of the arrays: it must write the bits that one call writes.
TEST(AdamBits, DoNotDependOnHowTheArrayIsCut) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  constexpr Index kSize = 1003;
  const Floats gradients = random_floats(kSize, 2);
  const auto run = [&](Index piece) {
    Floats p = random_floats(kSize, 1), m = random_floats(kSize, 3), v(kSize, 0.01f);
    for (Index first = 0; first < kSize; first += piece)
      adam(context, {.size = std::min(piece, kSize - first),
                     .parameters = p.data() + first,
                     .gradients = gradients.data() + first,
                     .first_moments = m.data() + first,
                     .second_moments = v.data() + first,
                     .learning_rate = 0.01f,
                     .weight_decay = 0.1f,
                     .step = 7});
    synchronize(context);
    return p;
  };
  const Floats whole = run(kSize);
  for (const Index piece : {1, 5, 16, 37, 500}) EXPECT_TRUE(same_bits(run(piece), whole)) << "pieces of " << piece;
}

// As the gradients of all parameters: more arrays than a launch takes, empty ones among them.
TEST(SumOfSquaresTest, OfAListIsThatOfEachAlone) {
  constexpr Index kCount = 230;
  const auto size_of = [](Index i) { return i % 7 * 5000 + i; };
  const Floats x = random_floats(size_of(kCount) * 7, 1);
  ThreadPool threads(2);
  const Context context = test_context(threads);
  Guarded<double> together(kCount), alone(kCount);
  std::vector<SumOfSquares> list;
  for (Index i = 0; i < kCount; ++i) {
    list.push_back({.size = size_of(i), .x = x.data() + i, .sum = together.data() + i});
    sum_of_squares(context, {.size = size_of(i), .x = x.data() + i, .sum = alone.data() + i});
  }
  sum_of_squares(context, list);
  EXPECT_EQ(together.values(), alone.values());
}

TEST(SumOfSquaresTest, MatchesTheReferenceAndPassesOnNan) {
  for (const Index size : kSizes) {
    Floats x = random_floats(size, 1, 100);
    double expected = 0;
    for (const float value : x) expected += double{value} * value;
    double first = 0;
    for (int num_threads = 1; num_threads <= 3; ++num_threads) {
      ThreadPool threads(num_threads);
      const Context context = test_context(threads);
      const auto sum_of = [&](const Floats& values) {
        Guarded<double> found(1);
        sum_of_squares(context, {.size = size, .x = values.data(), .sum = found.data()});
        return found.values()[0];
      };
      const double sum = sum_of(x);
      if (num_threads == 1) first = sum;
      EXPECT_EQ(sum, first) << num_threads << " threads";
      EXPECT_NEAR(sum, expected, 1e-12 * expected);
      if (size == 0) continue;
      Floats with_nan = x;
      with_nan.back() = kPoison;
      EXPECT_TRUE(std::isnan(sum_of(with_nan)));
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
