#include "kernels/api/elementwise.hpp"

#include <algorithm>
#include <numbers>

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

struct Case {
  Index rows, cols;
  float probability;
};
constexpr Case kCases[] = {{0, 5, 0.1f},   {1, 1, 0},      {2, 3, 0.5f},     {3, 17, 0.1f},  {17, 2, 0},
                           {25, 65, 0.1f}, {65, 25, 0.3f}, {130, 300, 0.1f}, {5, 1030, 0.1f}};

double gelu(double u) { return 0.5 * u * (1 + std::erf(u / std::numbers::sqrt2)); }
double d_gelu(double u) {
  return 0.5 * (1 + std::erf(u / std::numbers::sqrt2)) + u * std::exp(-u * u / 2) / std::sqrt(2 * std::numbers::pi);
}

// One pass in doubles: element(row, column, flat index) for every element.
Doubles map(const Case& shape, const std::function<double(Index, Index, std::size_t)>& element) {
  Doubles values(static_cast<std::size_t>(shape.rows * shape.cols));
  for (Index r = 0; r < shape.rows; ++r)
    for (Index c = 0; c < shape.cols; ++c) {
      const auto i = static_cast<std::size_t>(r * shape.cols + c);
      values[i] = element(r, c, i);
    }
  return values;
}

class Elementwise : public testing::TestWithParam<Case> {
 protected:
  const Case shape = GetParam();
  const Index size = shape.rows * shape.cols;
  const Floats x = random_floats(size, 1, 4), other = random_floats(size, 2, 2), bias = random_floats(shape.cols, 3);
  const Dropout dropout = some_dropout(shape.probability);
  double scale(Index r, Index c) const { return shape.probability == 0 ? 1.0 : reference_scale(dropout, r, c); }
};

TEST_P(Elementwise, BiasActivationDropout) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(size), in_place(x);
    BiasActivationDropout args{
        .rows = shape.rows, .cols = shape.cols, .x = x.data(), .bias = bias.data(), .y = y.data(), .dropout = dropout};
    bias_activation_dropout(context, args);
    args.x = in_place.data();
    args.y = in_place.data();
    bias_activation_dropout(context, args);
    return {y.values(), in_place.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "in place";
  expect_near(
      outputs[0],
      map(shape, [&](Index r, Index c,
                     std::size_t i) { return scale(r, c) * gelu(double{x[i]} + bias[static_cast<std::size_t>(c)]); }),
      1e-6, "y");
}

TEST_P(Elementwise, BiasActivationDropoutBackward) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output d_x(size), in_place(other), d_bias(shape.cols);
    BiasActivationDropoutBackward args{.rows = shape.rows,
                                       .cols = shape.cols,
                                       .x = x.data(),
                                       .bias = bias.data(),
                                       .d_y = other.data(),
                                       .d_x = d_x.data(),
                                       .d_bias = d_bias.data(),
                                       .dropout = dropout};
    bias_activation_dropout_backward(context, args);
    args.d_y = in_place.data();
    args.d_x = in_place.data();
    bias_activation_dropout_backward(context, args);
    return {d_x.values(), in_place.values(), d_bias.values()};
  });
  const Doubles d_x = map(shape, [&](Index r, Index c, std::size_t i) {
    return other[i] * scale(r, c) * d_gelu(double{x[i]} + bias[static_cast<std::size_t>(c)]);
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "in place";
  expect_near(outputs[0], d_x, 2e-6, "d_x");
  expect_sums(outputs[2], column_sums(outputs[0], shape.cols), "d_bias");
}

TEST_P(Elementwise, ReluBothWays) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(size), d_x(size), d_bias(shape.cols);
    bias_activation_dropout(context, {.rows = shape.rows,
                                      .cols = shape.cols,
                                      .activation = Activation::kRelu,
                                      .x = x.data(),
                                      .bias = bias.data(),
                                      .y = y.data(),
                                      .dropout = dropout});
    bias_activation_dropout_backward(context, {.rows = shape.rows,
                                               .cols = shape.cols,
                                               .activation = Activation::kRelu,
                                               .x = x.data(),
                                               .bias = bias.data(),
                                               .d_y = other.data(),
                                               .d_x = d_x.data(),
                                               .d_bias = d_bias.data(),
                                               .dropout = dropout});
    return {y.values(), d_x.values(), d_bias.values()};
  });
  const auto u = [&](Index c, std::size_t i) { return x[i] + bias[static_cast<std::size_t>(c)]; };
  const Doubles y = map(shape, [&](Index r, Index c, std::size_t i) { return scale(r, c) * std::max(u(c, i), 0.0f); });
  const Doubles d_x =
      map(shape, [&](Index r, Index c, std::size_t i) { return u(c, i) > 0 ? scale(r, c) * other[i] : 0.0; });
  expect_near(outputs[0], y, 1e-6, "y");
  expect_near(outputs[1], d_x, 1e-6, "d_x");
  expect_sums(outputs[2], column_sums(outputs[1], shape.cols), "d_bias");
}

TEST_P(Elementwise, WithoutBiasOrResidualTheyCountAsZeros) {
  const Floats zeros(static_cast<std::size_t>(size), 0.0f), no_bias(static_cast<std::size_t>(shape.cols), 0.0f);
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    std::vector<Floats> all;
    for (const bool given : {false, true}) {
      Output y(size);
      bias_dropout_residual(context, {.rows = shape.rows,
                                      .cols = shape.cols,
                                      .x = x.data(),
                                      .bias = given ? no_bias.data() : nullptr,
                                      .residual = given ? zeros.data() : nullptr,
                                      .y = y.data(),
                                      .dropout = dropout});
      all.push_back(y.values());
    }
    return all;
  });
  expect_near(outputs[0], widen(outputs[1]), 0, "y");
}

TEST(Relu, KeepsNotANumber) {
  ThreadPool threads(1);
  const Floats x{kPoison, -1, 2}, bias{0, 0, 0};
  Output y(3);
  bias_activation_dropout(
      test_context(threads),
      {.rows = 1, .cols = 3, .activation = Activation::kRelu, .x = x.data(), .bias = bias.data(), .y = y.data()});
  expect_near(y.values(), {kPoison, 0, 2}, 0, "y");
}

TEST_P(Elementwise, BiasDropoutResidual) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(size), over_residual(other), over_x(x);
    BiasDropoutResidual args{.rows = shape.rows,
                             .cols = shape.cols,
                             .x = x.data(),
                             .bias = bias.data(),
                             .residual = other.data(),
                             .y = y.data(),
                             .dropout = dropout};
    bias_dropout_residual(context, args);
    args.residual = args.y = over_residual.data();
    bias_dropout_residual(context, args);
    args.residual = other.data();
    args.x = args.y = over_x.data();
    bias_dropout_residual(context, args);
    return {y.values(), over_residual.values(), over_x.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "y over residual";
  EXPECT_TRUE(same_bits(outputs[0], outputs[2])) << "y over x";
  expect_near(outputs[0],
              map(shape,
                  [&](Index r, Index c, std::size_t i) {
                    return other[i] + scale(r, c) * (double{x[i]} + bias[static_cast<std::size_t>(c)]);
                  }),
              1e-6, "y");
}

TEST_P(Elementwise, DropoutBackward) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output d_x(size), in_place(x), d_bias(shape.cols), d_bias_in_place(shape.cols);
    DropoutBackward args{.rows = shape.rows,
                         .cols = shape.cols,
                         .d_y = x.data(),
                         .d_x = d_x.data(),
                         .d_bias = d_bias.data(),
                         .dropout = dropout};
    dropout_backward(context, args);
    args.d_y = in_place.data();
    args.d_x = in_place.data();
    args.d_bias = d_bias_in_place.data();
    dropout_backward(context, args);
    return {d_x.values(), in_place.values(), d_bias.values(), d_bias_in_place.values()};
  });
  const Doubles d_x = map(shape, [&](Index r, Index c, std::size_t i) { return x[i] * scale(r, c); });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "in place";
  EXPECT_TRUE(same_bits(outputs[2], outputs[3])) << "d_bias in place";
  expect_near(outputs[0], d_x, 1e-6, "d_x");
  expect_sums(outputs[2], column_sums(outputs[0], shape.cols), "d_bias");
}

TEST_P(Elementwise, BiasAddAndColumnSum) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(shape.rows * shape.cols), in_place(x), sums(shape.cols);
    BiasAdd add{.rows = shape.rows, .cols = shape.cols, .x = x.data(), .bias = bias.data(), .y = y.data()};
    bias_add(context, add);
    add.x = add.y = in_place.data();
    bias_add(context, add);
    column_sum(context, {.rows = shape.rows, .cols = shape.cols, .x = x.data(), .sums = sums.data()});
    return {y.values(), sums.values(), in_place.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[2]));
  expect_near(
      outputs[0],
      map(shape, [&](Index, Index c, std::size_t i) { return double{x[i]} + bias[static_cast<std::size_t>(c)]; }), 1e-6,
      "x + bias");
  expect_sums(outputs[1], column_sums(x, shape.cols), "sums");
}

INSTANTIATE_TEST_SUITE_P(Shapes, Elementwise, testing::ValuesIn(kCases));

TEST(ElementwiseBits, DoNotDependOnTheAddress) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  constexpr Index kRows = 37, kCols = 52, kSize = kRows * kCols;
  const Floats x = random_floats(kSize + 1, 1, 4), d_y = random_floats(kSize + 1, 2), bias = random_floats(kCols, 3);
  Output y(kSize), d_x(kSize), d_bias(kCols), shifted_y(kSize + 1), shifted_d_x(kSize + 1), shifted_d_bias(kCols);
  const auto run = [&](const float* from, const float* d_from, float* to, float* d_to, float* d_bias_to) {
    bias_activation_dropout(
        context,
        {.rows = kRows, .cols = kCols, .x = from, .bias = bias.data(), .y = to, .dropout = some_dropout(0.1f)});
    bias_activation_dropout_backward(context, {.rows = kRows,
                                               .cols = kCols,
                                               .x = from,
                                               .bias = bias.data(),
                                               .d_y = d_from,
                                               .d_x = d_to,
                                               .d_bias = d_bias_to,
                                               .dropout = some_dropout(0.1f)});
  };
  const Floats x_before(x.begin() + 1, x.end()), d_y_before(d_y.begin() + 1, d_y.end());
  run(x_before.data(), d_y_before.data(), y.data(), d_x.data(), d_bias.data());
  run(x.data() + 1, d_y.data() + 1, shifted_y.data() + 1, shifted_d_x.data() + 1, shifted_d_bias.data());
  const auto after_first = [](const Floats& values) { return Floats(values.begin() + 1, values.end()); };
  EXPECT_TRUE(same_bits(y.values(), after_first(shifted_y.values())));
  EXPECT_TRUE(same_bits(d_x.values(), after_first(shifted_d_x.values())));
  EXPECT_TRUE(same_bits(d_bias.values(), shifted_d_bias.values()));
}

struct GeluValues {
  Floats gelu, derivative;
};
GeluValues gelu_of(const Floats& u) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const auto cols = static_cast<Index>(u.size());
  const Floats zeros(u.size(), 0.0f), ones(u.size(), 1.0f);
  Output y(cols), d_x(cols), d_bias(cols);
  bias_activation_dropout(context, {.rows = 1, .cols = cols, .x = u.data(), .bias = zeros.data(), .y = y.data()});
  bias_activation_dropout_backward(context, {.rows = 1,
                                             .cols = cols,
                                             .x = u.data(),
                                             .bias = zeros.data(),
                                             .d_y = ones.data(),
                                             .d_x = d_x.data(),
                                             .d_bias = d_bias.data()});
  return {y.values(), d_x.values()};
}

TEST(Gelu, IsAccurateInRelativeTermsDownToTheLowerTail) {
  Floats u;
  for (int i = -6000; i <= 6000; ++i) u.push_back(static_cast<float>(i) / 1000);
  const GeluValues values = gelu_of(u);
  for (std::size_t i = 0; i < u.size(); ++i) {
    const double expected = 0.5 * u[i] * std::erfc(-u[i] / std::numbers::sqrt2);
    ASSERT_NEAR(values.gelu[i], expected, 4e-6 * std::fabs(expected)) << "u = " << u[i];
    ASSERT_NEAR(values.derivative[i], d_gelu(u[i]), 1e-6) << "u = " << u[i];
  }
}

TEST(Gelu, IsTheIdentityOrZeroFarOut) {
  const GeluValues values = gelu_of({20, 1e10f, 1e30f, -20, -1e10f, -1e30f});
  EXPECT_EQ(values.gelu, (Floats{20, 1e10f, 1e30f, 0, 0, 0}));
  EXPECT_EQ(values.derivative, (Floats{1, 1, 1, 0, 0, 0}));
}

TEST(Gelu, PassesOnWhatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const GeluValues values = gelu_of({kPoison, infinity, -infinity});
  EXPECT_TRUE(std::isnan(values.gelu[0]));
  EXPECT_EQ(values.gelu[1], infinity);
  for (const float value : {values.gelu[2], values.derivative[0]}) EXPECT_FALSE(std::isfinite(value));
}

}  // namespace
}  // namespace switchyard::kernels
