#include "kernel_test.hpp"
#include "kernels/api/loss.hpp"

namespace switchyard::kernels {
namespace {

constexpr float kScale = 0.125f, kWeight = 3;

struct Case {
  Index samples, classes;
  Consistency kind;
};

// log softmax of (rows, classes)
Doubles log_softmax(const Doubles& logits, const Floats& bias) {
  const std::size_t classes = bias.size();
  Doubles result(logits.size());
  for (std::size_t row = 0; row < logits.size(); row += classes) {
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += std::exp(logits[row + c] + bias[c]);
    for (std::size_t c = 0; c < classes; ++c) result[row + c] = logits[row + c] + bias[c] - std::log(sum);
  }
  return result;
}

// KL(p||q) of the rows that begin at p and q.
double kl(const double* log_p, const double* log_q, std::size_t classes) {
  double sum = 0;
  for (std::size_t c = 0; c < classes; ++c) sum += std::exp(log_p[c]) * (log_p[c] - log_q[c]);
  return sum;
}

struct Problem {
  Case shape;
  Floats logits, bias;
  Ints labels;

  explicit Problem(const Case& of)
      : shape(of), logits(random_floats(2 * of.samples * of.classes, 1, 4)), bias(random_floats(of.classes, 2)) {
    for (Index s = 0; s < of.samples; ++s) labels.push_back(static_cast<std::int32_t>(s * 7 % of.classes));
  }

  // The sum over samples that is to be made small, with what counts as constant taken from `constant`.
  double objective(const Doubles& free, const Doubles& constant) const {
    const std::size_t samples = labels.size(), classes = bias.size();
    const Doubles log_p = log_softmax(free, bias), fixed = log_softmax(constant, bias);
    double sum = 0;
    for (std::size_t s = 0; s < samples; ++s) {
      const std::size_t first = s * classes, second = (samples + s) * classes, label = labels[s];
      const double *p1 = &log_p[first], *p2 = &log_p[second];
      sum -= p1[label];
      if (shape.kind == Consistency::kThor)
        sum += kWeight / 2 * (kl(p1, p2, classes) + kl(p2, p1, classes)) - p2[label];
      else
        sum += kWeight / 2 * (kl(&fixed[second], p1, classes) + kl(&fixed[first], p2, classes));
    }
    return sum;
  }
};

class ConsistencyLosses : public testing::TestWithParam<Case> {};

TEST_P(ConsistencyLosses, MatchTheReference) {
  const Problem problem(GetParam());
  const auto [samples, classes, kind] = GetParam();
  const auto outputs = on_all_threads(
      [&, samples = samples, classes = classes, kind = kind](const Context& context) -> std::vector<Floats> {
        Output loss(2 * samples), correct(2 * samples), divergence(samples), d_logits(2 * samples * classes);
        Output in_place(problem.logits), loss_only(2 * samples), loss_alone(2 * samples), correct_alone(2 * samples);
        ConsistencyLoss args{.samples = samples,
                             .classes = classes,
                             .kind = kind,
                             .logits = problem.logits.data(),
                             .bias = problem.bias.data(),
                             .labels = problem.labels.data(),
                             .scale = kScale,
                             .weight = kWeight,
                             .loss = loss.data(),
                             .correct = correct.data(),
                             .divergence = divergence.data(),
                             .d_logits = d_logits.data()};
        consistency_loss(context, args);
        args.logits = args.d_logits = in_place.data();
        consistency_loss(context, args);
        args.logits = problem.logits.data();
        args.d_logits = nullptr;
        args.loss = loss_only.data();
        consistency_loss(context, args);
        Ints both = problem.labels;
        both.insert(both.end(), problem.labels.begin(), problem.labels.end());
        softmax_cross_entropy(context, {.rows = 2 * samples,
                                        .classes = classes,
                                        .logits = problem.logits.data(),
                                        .bias = problem.bias.data(),
                                        .labels = both.data(),
                                        .loss = loss_alone.data(),
                                        .correct = correct_alone.data()});
        return {loss.values(),     correct.values(),   divergence.values(), d_logits.values(),
                in_place.values(), loss_only.values(), loss_alone.values(), correct_alone.values()};
      });
  EXPECT_TRUE(same_bits(outputs[3], outputs[4])) << "d_logits over logits";
  EXPECT_TRUE(same_bits(outputs[0], outputs[5])) << "without d_logits";
  EXPECT_TRUE(same_bits(outputs[0], outputs[6])) << "cross entropy of one pass";
  EXPECT_TRUE(same_bits(outputs[1], outputs[7])) << "correct answers of one pass";

  const Doubles logits = widen(problem.logits), log_p = log_softmax(logits, problem.bias);
  const auto num_samples = static_cast<std::size_t>(samples), num_classes = static_cast<std::size_t>(classes);
  Doubles loss, divergence;
  for (std::size_t row = 0; row < 2 * num_samples; ++row)
    loss.push_back(-log_p[row * num_classes + static_cast<std::size_t>(problem.labels[row % num_samples])]);
  for (std::size_t s = 0; s < num_samples; ++s) {
    const double *p1 = &log_p[s * num_classes], *p2 = &log_p[(num_samples + s) * num_classes];
    divergence.push_back((kl(p1, p2, num_classes) + kl(p2, p1, num_classes)) / 2);
  }
  expect_near(outputs[0], loss, 1e-6, "loss");
  expect_near(outputs[2], divergence, 2e-6, "divergence");
  const auto forward = [&](const Doubles& free) { return Doubles{problem.objective(free, logits)}; };
  expect_gradient(forward, logits, {kScale}, outputs[3], 3e-6, "d_logits", num_samples > 20 ? 13 : 1);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ConsistencyLosses,
                         testing::Values(Case{0, 10, Consistency::kThor}, Case{1, 1, Consistency::kThor},
                                         Case{3, 2, Consistency::kThor}, Case{17, 10, Consistency::kThor},
                                         Case{65, 100, Consistency::kThor}, Case{40, 17, Consistency::kThor},
                                         Case{0, 10, Consistency::kAdamix}, Case{1, 1, Consistency::kAdamix},
                                         Case{3, 2, Consistency::kAdamix}, Case{17, 10, Consistency::kAdamix},
                                         Case{65, 100, Consistency::kAdamix}, Case{40, 17, Consistency::kAdamix}));

struct Found {
  Floats loss, correct, divergence, d_logits;
};
Found run(Consistency kind, const Floats& logits, const Floats& bias, const Ints& labels, float weight, float scale) {
  ThreadPool threads(1);
  const auto samples = static_cast<Index>(labels.size());
  Output loss(2 * samples), correct(2 * samples), divergence(samples), d_logits(static_cast<Index>(logits.size()));
  consistency_loss(test_context(threads), {.samples = samples,
                                           .classes = static_cast<Index>(bias.size()),
                                           .kind = kind,
                                           .logits = logits.data(),
                                           .bias = bias.data(),
                                           .labels = labels.data(),
                                           .scale = scale,
                                           .weight = weight,
                                           .loss = loss.data(),
                                           .correct = correct.data(),
                                           .divergence = divergence.data(),
                                           .d_logits = d_logits.data()});
  return {loss.values(), correct.values(), divergence.values(), d_logits.values()};
}

// From PyTorch 1.13 in double precision: cross_entropy of both passes, or of the first, plus weight / 2 times
//   thor    kl_div(log p1, p2) + kl_div(log p2, p1)
//   adamix  kl_div(log p1, p2.detach()) + kl_div(log p2, p1.detach())     (kl_div(log p, q) is KL(q||p))
TEST(ConsistencyLosses, MatchPyTorch) {
  const Floats logits{1.0f, -0.5f, 2.0f, 0.25f, 1.5f, -1.0f, -2.0f, 0.75f, 0.5f, 1.25f, 0.5f, -0.75f};
  const Floats bias{0.125f, -0.25f, 0.5f};
  const Ints labels{2, 0};
  const Doubles loss{0.255892447, 1.339133913, 0.508591209, 0.419738847}, divergence{0.581601704, 0.407749566};
  const Doubles thor{0.615555144,  -0.514494929, -0.101060215, -1.301636579, 1.35269406,   -0.051057482,
                     -0.289310747, 1.420435499,  -1.131124752, 0.752851772,  -0.806173621, 0.053321849};
  const Doubles adamix{0.300164139,  -0.403380614, 0.103216476,  -0.862896081, 0.833479399,  0.029416682,
                       -0.202286741, 0.418390599,  -0.216103858, 0.493932355,  -0.519139719, 0.025207363};
  for (const Consistency kind : {Consistency::kThor, Consistency::kAdamix}) {
    const Found found = run(kind, logits, bias, labels, 5, 0.5f);
    expect_near(found.loss, loss, 1e-6, "loss");
    expect_near(found.divergence, divergence, 1e-6, "divergence");
    expect_near(found.d_logits, kind == Consistency::kThor ? thor : adamix, 1e-6, "d_logits");
    EXPECT_EQ(found.correct, (Floats{1, 0, 1, 1}));
  }
}

TEST(ConsistencyLosses, EqualAnswersDoNotDiverge) {
  const Floats logits{3, -1, 0.5f, 3, -1, 0.5f}, bias{0.25f, 0, -2};
  const Found found = run(Consistency::kThor, logits, bias, {1}, 100, 1);
  EXPECT_EQ(found.divergence[0], 0);
  for (std::size_t c = 0; c < 3; ++c) EXPECT_EQ(found.d_logits[c], found.d_logits[3 + c]);
}

TEST(ConsistencyLosses, HugeLogitsGiveFiniteValues) {
  const Found found = run(Consistency::kThor, {1e6f, 0, 0, 1e6f}, {0, 0}, {0}, 1, 1);
  EXPECT_FLOAT_EQ(found.divergence[0], 1e6f);  // p1 = (1, 0), p2 = (0, 1)
  for (const float value : found.d_logits) EXPECT_TRUE(std::isfinite(value));
}

TEST(ConsistencyLosses, NanStaysNanInItsSample) {
  const Found found = run(Consistency::kThor, {kPoison, 0, 1, 0, 1, 0, 1, 0}, {0, 0}, {0, 0}, 1, 1);
  EXPECT_TRUE(std::isnan(found.loss[0]) && std::isnan(found.divergence[0]));
  EXPECT_EQ(found.correct[0], 0);
  EXPECT_FALSE(std::isnan(found.loss[1]) || std::isnan(found.divergence[1]));
}

}  // namespace
}  // namespace switchyard::kernels
