#include "kernels/api/loss.hpp"

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

class CrossEntropy : public testing::TestWithParam<std::pair<Index, Index>> {};

TEST_P(CrossEntropy, MatchesTheReference) {
  const auto [rows, classes] = GetParam();
  const Floats logits = random_floats(rows * classes, 1, 5), bias = random_floats(classes, 2);
  Ints labels;
  for (Index r = 0; r < rows; ++r) labels.push_back(static_cast<std::int32_t>(r * 7 % classes));
  const float scale = 0.125f;
  const auto outputs =
      on_all_threads([&, rows = rows, classes = classes](const Context& context) -> std::vector<Floats> {
        Output loss(rows), correct(rows), d_logits(rows * classes), in_place(logits), loss_only(rows);
        SoftmaxCrossEntropy args{.rows = rows,
                                 .classes = classes,
                                 .logits = logits.data(),
                                 .bias = bias.data(),
                                 .labels = labels.data(),
                                 .scale = scale,
                                 .loss = loss.data(),
                                 .correct = correct.data(),
                                 .d_logits = d_logits.data()};
        softmax_cross_entropy(context, args);
        args.logits = args.d_logits = in_place.data();
        softmax_cross_entropy(context, args);
        args.logits = logits.data();
        args.d_logits = nullptr;
        args.loss = loss_only.data();
        softmax_cross_entropy(context, args);
        return {loss.values(), correct.values(), d_logits.values(), in_place.values(), loss_only.values()};
      });
  EXPECT_TRUE(same_bits(outputs[2], outputs[3])) << "d_logits over logits";
  EXPECT_TRUE(same_bits(outputs[0], outputs[4])) << "without d_logits";
  Doubles loss, correct, d_logits;
  for (Index r = 0; r < rows; ++r) {
    const auto z = [&, classes = classes](Index c) {
      return double{logits[static_cast<std::size_t>(r * classes + c)]} + bias[static_cast<std::size_t>(c)];
    };
    const Index label = labels[static_cast<std::size_t>(r)];
    double sum = 0;
    bool is_max = true;
    for (Index c = 0; c < classes; ++c) {
      sum += std::exp(z(c));
      is_max = is_max && z(c) <= z(label);
    }
    loss.push_back(std::log(sum) - z(label));
    correct.push_back(is_max ? 1 : 0);
    for (Index c = 0; c < classes; ++c) d_logits.push_back(scale * (std::exp(z(c)) / sum - (c == label ? 1 : 0)));
  }
  expect_near(outputs[0], loss, 1e-6, "loss");
  expect_near(outputs[1], correct, 0, "correct");
  expect_near(outputs[2], d_logits, 1e-6, "d_logits");
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossEntropy,
                         testing::Values(std::pair<Index, Index>{0, 10}, std::pair<Index, Index>{1, 1},
                                         std::pair<Index, Index>{3, 2}, std::pair<Index, Index>{17, 10},
                                         std::pair<Index, Index>{65, 100}, std::pair<Index, Index>{40, 17}));

// softmax(z) as if it were logits.
TEST(CrossEntropyOfSoftmax, MatchesTheReference) {
  for (const auto& [rows, classes] : {std::pair<Index, Index>{0, 2}, {33, 2}, {17, 5}}) {
    const Floats logits = random_floats(rows * classes, 3, 4), bias = random_floats(classes, 4);
    Ints labels;
    for (Index r = 0; r < rows; ++r) labels.push_back(static_cast<std::int32_t>(r * 7 % classes));
    const auto outputs = on_all_threads([&, rows = rows, classes = classes](const Context& context) {
      Output loss(rows), correct(rows), d_logits(rows * classes);
      softmax_cross_entropy(context, {.rows = rows,
                                      .classes = classes,
                                      .logits = logits.data(),
                                      .bias = bias.data(),
                                      .labels = labels.data(),
                                      .scale = 0.5f,
                                      .of_softmax = true,
                                      .loss = loss.data(),
                                      .correct = correct.data(),
                                      .d_logits = d_logits.data()});
      return std::vector<Floats>{loss.values(), correct.values(), d_logits.values()};
    });
    const auto softmax = [classes = classes](Doubles z) {
      double sum = 0;
      for (double& value : z) sum += value = std::exp(value);
      for (double& value : z) value /= sum;
      return z;
    };
    const auto losses = [&, rows = rows, classes = classes](const Doubles& all) {
      Doubles loss;
      for (Index r = 0; r < rows; ++r) {
        Doubles z(all.begin() + r * classes, all.begin() + (r + 1) * classes);
        for (std::size_t c = 0; c < z.size(); ++c) z[c] += double{bias[c]};
        loss.push_back(-std::log(softmax(softmax(z))[static_cast<std::size_t>(labels[static_cast<std::size_t>(r)])]));
      }
      return loss;
    };
    expect_near(outputs[0], losses(widen(logits)), 1e-6, "loss");
    expect_gradient(losses, widen(logits), Floats(static_cast<std::size_t>(rows), 0.5f), outputs[2], 1e-5, "d_logits");
    for (const float correct : outputs[1]) EXPECT_TRUE(correct == 0 || correct == 1);
  }
}

TEST(CrossEntropyOfSoftmax, HasAFloor) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats logits = {50, 0};
  const Ints label = {0};
  Output loss(1), correct(1), d_logits(2);
  softmax_cross_entropy(context, {.rows = 1,
                                  .classes = 2,
                                  .logits = logits.data(),
                                  .labels = label.data(),
                                  .of_softmax = true,
                                  .loss = loss.data(),
                                  .correct = correct.data(),
                                  .d_logits = d_logits.data()});
  EXPECT_NEAR(loss.values()[0], std::log1p(std::exp(-1.0)), 1e-6);
  EXPECT_EQ(correct.values()[0], 1);
}

struct OneRow {
  float loss, correct;
};
OneRow one_row(const Floats& logits, std::int32_t label) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats bias(logits.size(), 0.0f);
  const Ints labels = {label};
  Output loss(1), correct(1);
  softmax_cross_entropy(context, {.rows = 1,
                                  .classes = static_cast<Index>(logits.size()),
                                  .logits = logits.data(),
                                  .bias = bias.data(),
                                  .labels = labels.data(),
                                  .loss = loss.data(),
                                  .correct = correct.data()});
  return {loss.values()[0], correct.values()[0]};
}

TEST(CrossEntropyRow, OnlyTheFirstOfEqualMaximaIsCorrect) {
  EXPECT_EQ(one_row({1, 3, 3}, 1).correct, 1);
  EXPECT_EQ(one_row({1, 3, 3}, 2).correct, 0);
}

TEST(CrossEntropyRow, HugeLogitsGiveAFiniteLoss) {
  EXPECT_FLOAT_EQ(one_row({1e6f, 0, -1e6f}, 1).loss, 1e6f);
  EXPECT_EQ(one_row({1e6f, 0, -1e6f}, 0).loss, 0);
}

TEST(CrossEntropyRow, NanIsNeverCorrectAndItsLossIsNan) {
  for (const std::size_t position : {0, 1, 2})
    for (const std::int32_t label : {0, 1, 2}) {
      Floats logits{3, 2, 1};
      logits[position] = kPoison;
      const OneRow row = one_row(logits, label);
      EXPECT_EQ(row.correct, 0);
      EXPECT_TRUE(std::isnan(row.loss));
    }
}

}  // namespace
}  // namespace switchyard::kernels
