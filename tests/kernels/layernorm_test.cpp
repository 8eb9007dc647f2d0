#include "kernels/api/layernorm.hpp"

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

struct Case {
  Index rows, cols, x_stride;
};
constexpr Case kCases[] = {{0, 4, 4},     {1, 2, 2},     {2, 3, 7},        {3, 17, 17},
                           {17, 25, 40},  {65, 64, 64},  {130, 300, 300},  {4, 65, 130},
                           {2, 500, 501}, {3, 900, 900}, {18, 1030, 1030}, {2, 4200, 4200}};
constexpr double kEpsilon = 1e-5;

class LayerNormCases : public testing::TestWithParam<Case> {
 protected:
  const Case shape = GetParam();
  const Index rows = shape.rows, cols = shape.cols;
  // An offset far from 0 shows a variance computed as a difference of large sums.
  const Floats x = [this] {
    Floats values = random_floats(rows * shape.x_stride, 1);
    for (float& value : values) value += 10;
    return values;
  }();
  const Floats gamma = random_floats(cols, 2), beta = random_floats(cols, 3), d_y = random_floats(rows * cols, 4);

  // at (rows, x_stride) -> y (rows, cols)
  Doubles reference(const Doubles& at, const Doubles& g, const Doubles& b, Doubles* means, Doubles* rstds) const {
    Doubles y;
    for (Index r = 0; r < rows; ++r) {
      const double* row = at.data() + r * shape.x_stride;
      double mean = 0, variance = 0;
      for (Index c = 0; c < cols; ++c) mean += row[c] / static_cast<double>(cols);
      for (Index c = 0; c < cols; ++c) variance += (row[c] - mean) * (row[c] - mean) / static_cast<double>(cols);
      const double rstd = 1 / std::sqrt(variance + kEpsilon);
      for (std::size_t c = 0; c < static_cast<std::size_t>(cols); ++c)
        y.push_back((row[c] - mean) * rstd * g[c] + b[c]);
      if (means) means->push_back(mean);
      if (rstds) rstds->push_back(rstd);
    }
    return y;
  }
};

TEST_P(LayerNormCases, ForwardAndBackwardMatchTheReference) {
  const Floats before = random_floats(rows * shape.x_stride, 5);  // the gradient that is there already
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(rows * cols), mean(rows), rstd(rows), d_x(before), d_gamma(cols), d_beta(cols);
    layernorm(context, {.rows = rows,
                        .cols = cols,
                        .x = x.data(),
                        .x_stride = shape.x_stride,
                        .gamma = gamma.data(),
                        .beta = beta.data(),
                        .epsilon = static_cast<float>(kEpsilon),
                        .y = y.data(),
                        .mean = mean.data(),
                        .rstd = rstd.data()});
    layernorm_backward(context, {.rows = rows,
                                 .cols = cols,
                                 .x = x.data(),
                                 .x_stride = shape.x_stride,
                                 .gamma = gamma.data(),
                                 .mean = mean.data(),
                                 .rstd = rstd.data(),
                                 .d_y = d_y.data(),
                                 .d_x = d_x.data(),
                                 .d_gamma = d_gamma.data(),
                                 .d_beta = d_beta.data()});
    return {y.values(), mean.values(), rstd.values(), d_x.values(), d_gamma.values(), d_beta.values()};
  });
  const Doubles wide_x = widen(x), wide_gamma = widen(gamma), wide_beta = widen(beta);
  Doubles means, rstds;
  expect_near(outputs[0], reference(wide_x, wide_gamma, wide_beta, &means, &rstds), 2e-5, "y");
  expect_near(outputs[1], means, 1e-6, "mean");
  expect_near(outputs[2], rstds, 1e-5, "rstd");
  expect_gradient([&](const Doubles& at) { return reference(wide_x, at, wide_beta, nullptr, nullptr); }, wide_gamma,
                  d_y, outputs[4], 1e-4, "d_gamma", cols > 100 ? 13 : 1);
  expect_gradient([&](const Doubles& at) { return reference(wide_x, wide_gamma, at, nullptr, nullptr); }, wide_beta,
                  d_y, outputs[5], 1e-5, "d_beta", cols > 100 ? 13 : 1);

  // d_x holds what was there plus the gradient, and nothing new between the rows.
  Floats added(outputs[3].size());
  for (std::size_t i = 0; i < added.size(); ++i) added[i] = outputs[3][i] - before[i];
  expect_gradient([&](const Doubles& at) { return reference(at, wide_gamma, wide_beta, nullptr, nullptr); }, wide_x,
                  d_y, added, 1e-4, "d_x", rows * cols > 1000 ? 101 : 1);
  for (std::size_t i = 0; i < added.size(); ++i)
    if (static_cast<Index>(i) % shape.x_stride >= cols) {
      ASSERT_EQ(added[i], 0) << i;
    }
}

// Row r's j-th slot in a plan that fills them backwards; each seventh assignment, and all of row 2, has none.
Ints some_slots(Index rows, Index top_k) {
  Ints slots;
  for (Index a = 0; a < rows * top_k; ++a)
    slots.push_back(a % 7 == 3 || a / top_k == 2 ? -1 : static_cast<std::int32_t>(rows * top_k - 1 - a));
  return slots;
}

TEST_P(LayerNormCases, RowsGoToTheirSlotsWithTheBitsThatTheyHaveInOrder) {
  for (const Index top_k : {1, 2}) {
    const Ints slots = some_slots(rows, top_k);
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output in_order(rows * cols), means(rows), rstds(rows), y(rows * top_k * cols), mean(rows), rstd(rows);
      LayerNorm args{.rows = rows,
                     .cols = cols,
                     .x = x.data(),
                     .x_stride = shape.x_stride,
                     .gamma = gamma.data(),
                     .beta = beta.data(),
                     .y = in_order.data(),
                     .mean = means.data(),
                     .rstd = rstds.data()};
      layernorm(context, args);
      args.y = y.data();
      args.slots = {top_k, slots.data()};
      args.mean = mean.data();
      args.rstd = rstd.data();
      layernorm(context, args);
      EXPECT_TRUE(same_bits(mean.values(), means.values()));
      EXPECT_TRUE(same_bits(rstd.values(), rstds.values()));
      return {in_order.values(), y.values()};
    });
    Floats expected(outputs[1].size(), kPoison);  // what is no row's slot is left alone
    for (Index a = 0; a < rows * top_k; ++a)
      if (const Index slot = slots[static_cast<std::size_t>(a)]; slot >= 0)
        std::copy_n(outputs[0].begin() + a / top_k * cols, cols, expected.begin() + slot * cols);
    EXPECT_TRUE(same_bits(outputs[1], expected)) << "top_k " << top_k;
  }
}

TEST_P(LayerNormCases, GradientsFromSlotsHaveTheBitsOfTheirSum) {
  const Floats mean = random_floats(rows, 6), rstd = random_floats(rows, 7), addend = random_floats(rows * cols, 8);
  for (const Index top_k : {1, 2, 3})
    for (const bool adds : {false, true}) {
      SCOPED_TRACE(testing::Message() << "top_k " << top_k << (adds ? ", with an addend" : ""));
      const Ints slots = some_slots(rows, top_k);
      // Products of two, so that sums in another order are rounded otherwise.
      Floats d_slots = random_floats(rows * top_k * cols, 9);
      const Floats factors = random_floats(rows * top_k * cols, 10);
      for (std::size_t i = 0; i < d_slots.size(); ++i) d_slots[i] *= factors[i];
      Floats sum(d_y.size(), 0.0f);
      for (Index i = 0; i < rows * cols; ++i) {
        float& element = sum[static_cast<std::size_t>(i)];
        for (Index k = 0; k < top_k; ++k)
          if (const Index slot = slots[static_cast<std::size_t>(i / cols * top_k + k)]; slot >= 0)
            element += d_slots[static_cast<std::size_t>(slot * cols + i % cols)];
        if (adds) element += addend[static_cast<std::size_t>(i)];
      }
      const auto run = [&](const Context& context, const Floats& gradient, const SlotsOfRows& of_rows,
                           const float* added) -> std::vector<Floats> {
        Output d_x(random_floats(rows * shape.x_stride, 5)), d_gamma(cols), d_beta(cols);
        layernorm_backward(context, {.rows = rows,
                                     .cols = cols,
                                     .x = x.data(),
                                     .x_stride = shape.x_stride,
                                     .gamma = gamma.data(),
                                     .mean = mean.data(),
                                     .rstd = rstd.data(),
                                     .d_y = gradient.data(),
                                     .slots = of_rows,
                                     .addend = added,
                                     .d_x = d_x.data(),
                                     .d_gamma = d_gamma.data(),
                                     .d_beta = d_beta.data()});
        return {d_x.values(), d_gamma.values(), d_beta.values()};
      };
      on_all_threads([&](const Context& context) {
        const auto expected = run(context, sum, {}, nullptr);
        const auto outputs = run(context, d_slots, {top_k, slots.data()}, adds ? addend.data() : nullptr);
        for (std::size_t i = 0; i < expected.size(); ++i)
          EXPECT_TRUE(same_bits(outputs[i], expected[i])) << "output " << i;
        return outputs;
      });
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LayerNormCases, testing::ValuesIn(kCases));

TEST(LayerNorm, BitsDoNotDependOnTheAddress) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  constexpr Index kRows = 5, kCols = 68;
  const auto run = [&](std::size_t offset) {
    const auto shifted = [=](std::uint32_t seed, Index size) {
      Floats values(offset, 0.0f);
      const Floats random = random_floats(size, seed);
      values.insert(values.end(), random.begin(), random.end());
      return values;
    };
    const auto after_offset = [=](const Floats& values) {
      return Floats(values.begin() + static_cast<std::ptrdiff_t>(offset), values.end());
    };
    const Floats x = shifted(1, kRows * kCols), gamma = shifted(2, kCols), beta = shifted(3, kCols),
                 d_y = shifted(4, kRows * kCols);
    Output y(shifted(5, kRows * kCols)), d_x(shifted(6, kRows * kCols)), mean(kRows), rstd(kRows), d_gamma(kCols),
        d_beta(kCols);
    layernorm(context, {.rows = kRows,
                        .cols = kCols,
                        .x = x.data() + offset,
                        .x_stride = kCols,
                        .gamma = gamma.data() + offset,
                        .beta = beta.data() + offset,
                        .y = y.data() + offset,
                        .mean = mean.data(),
                        .rstd = rstd.data()});
    layernorm_backward(context, {.rows = kRows,
                                 .cols = kCols,
                                 .x = x.data() + offset,
                                 .x_stride = kCols,
                                 .gamma = gamma.data() + offset,
                                 .mean = mean.data(),
                                 .rstd = rstd.data(),
                                 .d_y = d_y.data() + offset,
                                 .d_x = d_x.data() + offset,
                                 .d_gamma = d_gamma.data(),
                                 .d_beta = d_beta.data()});
    return std::vector<Floats>{after_offset(y.values()), after_offset(d_x.values()), d_gamma.values(), d_beta.values()};
  };
  const auto aligned = run(0), shifted = run(1);
  for (std::size_t i = 0; i < aligned.size(); ++i) EXPECT_TRUE(same_bits(aligned[i], shifted[i])) << "output " << i;
}

TEST(LayerNorm, NanStaysInItsRow) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  Floats x = random_floats(3 * 20, 1);
  x[25] = kPoison;
  const Floats ones(20, 1.0f);
  Output y(60), mean(3), rstd(3);
  layernorm(context, {.rows = 3,
                      .cols = 20,
                      .x = x.data(),
                      .x_stride = 20,
                      .gamma = ones.data(),
                      .beta = ones.data(),
                      .y = y.data(),
                      .mean = mean.data(),
                      .rstd = rstd.data()});
  const Floats values = y.values();
  for (std::size_t i = 0; i < 60; ++i) EXPECT_EQ(std::isnan(values[i]), i / 20 == 1) << i;
}

}  // namespace
}  // namespace switchyard::kernels
