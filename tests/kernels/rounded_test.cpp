// What products write in bf16, and the kernels that read it: a kernel has the bits that it has of the same values in
// fp32.
#include <array>

#include "kernel_test.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/layernorm.hpp"
#include "kernels/api/routing.hpp"
#include "rounded_array.hpp"

namespace switchyard::kernels {
namespace {

// kernel(context, x) reads an array (rows, cols) and returns its outputs.
using Kernel = std::function<std::vector<Floats>(const Context&, const Operand&)>;
void expect_reads_rounded(const Floats& x, Index cols, const Kernel& kernel) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device is given fp32 alone";
  const Floats values = rounded(x);
  RoundedOutput as_bf16(x, cols);
  on_all_threads([&](const Context& context) {
    const std::vector<Floats> expected = kernel(context, values.data());
    const std::vector<Floats> outputs = kernel(context, {nullptr, as_bf16.data()});
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(same_bits(expected[i], outputs[i])) << "output " << i;
    return outputs;
  });
}

class OfRounded : public OfRowsAndCols {};

TEST_P(OfRounded, BiasActivationDropout) {
  expect_reads_rounded(x, cols, [&](const Context& context, const Operand& of_x) -> std::vector<Floats> {
    Output y(size);
    bias_activation_dropout(
        context, {.rows = rows, .cols = cols, .x = of_x, .bias = of_cols.data(), .y = y.data(), .dropout = dropout});
    return {y.values()};
  });
}

TEST_P(OfRounded, BiasActivationDropoutBackward) {
  const auto run = [&](const Context& context, const Operand& of_x, const Operand& of_d_y) -> std::vector<Floats> {
    Output d_x(size), d_bias(cols);
    bias_activation_dropout_backward(context, {.rows = rows,
                                               .cols = cols,
                                               .x = of_x,
                                               .bias = of_cols.data(),
                                               .d_y = of_d_y,
                                               .d_x = d_x.data(),
                                               .d_bias = d_bias.data(),
                                               .dropout = dropout});
    return {d_x.values(), d_bias.values()};
  };
  expect_reads_rounded(x, cols, [&](const Context& c, const Operand& of_x) { return run(c, of_x, d_y.data()); });
  expect_reads_rounded(d_y, cols, [&](const Context& c, const Operand& of_d_y) { return run(c, x.data(), of_d_y); });
}

TEST_P(OfRounded, BiasActivationDropoutBackwardInPlace) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device is given fp32 alone";
  on_all_threads([&](const Context& context) -> std::vector<Floats> {
    RoundedOutput of_x(x, cols), of_d_y(d_y, cols), d_x(rows, cols), in_place(d_y, cols);
    Output d_bias(cols);
    BiasActivationDropoutBackward args{.rows = rows,
                                       .cols = cols,
                                       .x = {nullptr, of_x.data()},
                                       .bias = of_cols.data(),
                                       .d_y = {nullptr, of_d_y.data()},
                                       .d_x = {nullptr, d_x.data()},
                                       .d_bias = d_bias.data(),
                                       .dropout = dropout};
    bias_activation_dropout_backward(context, args);
    args.d_y = args.d_x = {nullptr, in_place.data()};
    bias_activation_dropout_backward(context, args);
    EXPECT_TRUE(same_bits(d_x.values(), in_place.values()));
    return {d_x.values()};
  });
}

TEST_P(OfRounded, BiasDropoutResidual) {
  expect_reads_rounded(x, cols, [&](const Context& context, const Operand& of_x) -> std::vector<Floats> {
    Output with_residual(d_y), alone(size);
    bias_dropout_residual(context, {.rows = rows,
                                    .cols = cols,
                                    .x = of_x,
                                    .bias = of_cols.data(),
                                    .residual = with_residual.data(),
                                    .y = with_residual.data(),
                                    .dropout = dropout});
    bias_dropout_residual(context, {.rows = rows, .cols = cols, .x = of_x, .y = alone.data()});
    return {with_residual.values(), alone.values()};
  });
}

TEST_P(OfRounded, BiasAddAndColumnSum) {
  expect_reads_rounded(x, cols, [&](const Context& context, const Operand& of_x) -> std::vector<Floats> {
    Output y(size), sums(cols);
    bias_add(context, {.rows = rows, .cols = cols, .x = of_x, .bias = of_cols.data(), .y = y.data()});
    column_sum(context, {.rows = rows, .cols = cols, .x = of_x, .sums = sums.data()});
    return {y.values(), sums.values()};
  });
}

// Two slots for each row, in backward order; every fifth assignment is dropped.
Ints backward_slots(Index rows) {
  Ints slots;
  for (Index i = 0; i < 2 * rows; ++i) slots.push_back(i % 5 == 4 ? -1 : static_cast<std::int32_t>(2 * rows - 1 - i));
  return slots;
}

TEST_P(OfRounded, LayerNormBackward) {
  const Floats before = random_floats(size, 5), mean = random_floats(rows, 6), rstd = random_floats(rows, 7);
  const auto run = [&](const Context& context, const Operand& of_d_y, const SlotsOfRows& slots,
                       const float* addend) -> std::vector<Floats> {
    Output d_x(before), d_gamma(cols), d_beta(cols);
    layernorm_backward(context, {.rows = rows,
                                 .cols = cols,
                                 .x = x.data(),
                                 .x_stride = cols,
                                 .gamma = of_cols.data(),
                                 .mean = mean.data(),
                                 .rstd = rstd.data(),
                                 .d_y = of_d_y,
                                 .slots = slots,
                                 .addend = addend,
                                 .d_x = d_x.data(),
                                 .d_gamma = d_gamma.data(),
                                 .d_beta = d_beta.data()});
    return {d_x.values(), d_gamma.values(), d_beta.values()};
  };
  expect_reads_rounded(d_y, cols, [&](const Context& c, const Operand& of_d_y) { return run(c, of_d_y, {}, nullptr); });
  const Floats d_slots = random_floats(2 * size, 8);
  const Ints slots = backward_slots(rows);
  expect_reads_rounded(d_slots, cols, [&](const Context& c, const Operand& of_slots) {
    return run(c, of_slots, {2, slots.data()}, d_y.data());
  });
}

// Rounded rows go to slots as they are.
TEST_P(OfRounded, Dispatch) {
  const Index num_slots = 2 * rows;
  Ints assignment_of_slot;
  for (Index i = 0; i < num_slots; ++i) assignment_of_slot.push_back(static_cast<std::int32_t>(num_slots - 1 - i));
  expect_reads_rounded(x, cols, [&](const Context& context, const Operand& of_x) -> std::vector<Floats> {
    Output slots(num_slots * cols);
    RoundedOutput as_bf16(num_slots, cols);
    IntOutput ids(num_slots);
    Dispatch args{.num_slots = num_slots,
                  .cols = cols,
                  .top_k = 2,
                  .rows = of_x,
                  .assignment_of_slot = assignment_of_slot.data(),
                  .slots = {nullptr, as_bf16.data()},
                  .slot_ids = ids.data()};
    dispatch(context, args);
    args.slots = slots.data();
    dispatch(context, args);
    EXPECT_TRUE(same_bits(as_bf16.values(), slots.values()));
    return {slots.values(), ids.floats()};
  });
}

TEST_P(OfRounded, CombineAndItsBackward) {
  const Index num_slots = 2 * rows;
  const Ints slots_of = backward_slots(rows);
  const Floats slots = random_floats(num_slots * cols, 8), weights = random_floats(num_slots, 9);
  expect_reads_rounded(slots, cols, [&](const Context& context, const Operand& of_slots) -> std::vector<Floats> {
    Output y(size), d_slots(Floats(slots.size(), 0.0f)), d_weights(num_slots);
    combine(context, {.tokens = rows,
                      .cols = cols,
                      .top_k = 2,
                      .slots = of_slots,
                      .slot_of_assignment = slots_of.data(),
                      .weights = weights.data(),
                      .residual = x.data(),
                      .y = y.data(),
                      .dropout = dropout});
    combine_backward(context, {.tokens = rows,
                               .cols = cols,
                               .top_k = 2,
                               .d_y = d_y.data(),
                               .slots = of_slots,
                               .slot_of_assignment = slots_of.data(),
                               .weights = weights.data(),
                               .d_slots = d_slots.data(),
                               .d_weights = d_weights.data(),
                               .dropout = dropout});
    return {y.values(), d_slots.values(), d_weights.values()};
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, OfRounded,
                         testing::Values(Shape{0, 5}, Shape{1, 1}, Shape{3, 7}, Shape{17, 25}, Shape{40, 64},
                                         Shape{33, 300}, Shape{2, 1030}, Shape{2, 4200}));

Floats whole_numbers(Index size, std::uint32_t seed) {
  Floats values = random_floats(size, seed, 9);
  for (float& value : values) value = std::round(value);
  return values;
}

// Sums of whole numbers are exact in every order, so what is written is known to the bit: each sum, rounded once.
void expect_writes_rounded(Index m, Index n, Index k, bool transposed) {
  SCOPED_TRACE(testing::Message() << m << " " << n << " " << k << " " << transposed);
  const Floats a = whole_numbers(m * k, 1), b = whole_numbers(n * k, 2);
  Floats expected;
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      float sum = 0;
      for (Index l = 0; l < k; ++l)
        sum += a[static_cast<std::size_t>(transposed ? l * m + i : i * k + l)] *
               b[static_cast<std::size_t>(transposed ? j * k + l : l * n + j)];
      expected.push_back(sum);
    }
  const Floats c = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    RoundedOutput out(m, n);
    gemm(context, Gemm{.transpose_a = transposed,
                       .transpose_b = transposed,
                       .m = m,
                       .n = n,
                       .k = k,
                       .a = a.data(),
                       .lda = transposed ? m : k,
                       .b = b.data(),
                       .ldb = transposed ? k : n,
                       .precision = Precision::kBf16,
                       .c_rounded = out.data()});
    EXPECT_TRUE(out.padding_is_untouched());
    return {out.values()};
  })[0];
  EXPECT_TRUE(same_bits(c, rounded(expected)));
}

TEST(RoundedProduct, IsTheSumRoundedOnce) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device is given fp32 alone";
  for (const bool transposed : {false, true}) {
    for (const auto& [m, n, k] :
         {std::array<Index, 3>{0, 3, 4}, {5, 7, 0}, {1, 1, 1}, {2, 3, 17}, {17, 25, 300}, {130, 300, 64}})
      expect_writes_rounded(m, n, k, transposed);
    for (const Index k : {2047, 2048, 2111, 3000, 33333}) expect_writes_rounded(5, 12, k, transposed);  // cut along k
  }
}

// As the segments of experts, whose rows lie in one array.
TEST(RoundedProduct, OfAListIsWhatEachGivesAlone) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device is given fp32 alone";
  constexpr Index kRows[] = {13, 0, 1, 26}, kAllRows = 40, kIn = 30, kOut = 25;
  const Floats x = random_floats(kAllRows * kIn, 1), weights = random_floats(4 * kOut * kIn, 2);
  on_all_threads([&](const Context& context) -> std::vector<Floats> {
    RoundedOutput together(kAllRows, kOut), alone(kAllRows, kOut);
    const auto products_into = [&](Bf16* y) {
      std::vector<Gemm> products;
      Index first_row = 0;
      for (std::size_t segment = 0; segment < std::size(kRows); ++segment) {
        const Operand of_segment = Operand(x.data()).from_row(first_row, kIn);
        products.push_back(LinearProducts{kRows[segment], kIn, kOut, Precision::kBf16}.forward(
            of_segment, weights.data() + static_cast<Index>(segment) * kOut * kIn,
            NewOperand{nullptr, y}.from_row(first_row, kOut)));
        first_row += kRows[segment];
      }
      return products;
    };
    gemm(context, products_into(together.data()));
    for (const Gemm& product : products_into(alone.data())) gemm(context, product);
    EXPECT_TRUE(same_bits(together.values(), alone.values()));
    EXPECT_TRUE(together.padding_is_untouched());
    return {together.values()};
  });
}

TEST(RoundedProduct, IsRefusedInFp32WithAddendsAndBesideValues) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device is given fp32 alone";
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats one(1, 1.0f);
  Output values(1);
  RoundedOutput y(1, 1);
  const auto product = [&](Precision precision, const NewOperand& of_y) {
    return LinearProducts{1, 1, 1, precision}.forward(one.data(), one.data(), of_y);
  };
  EXPECT_NO_THROW(gemm(context, product(Precision::kBf16, {nullptr, y.data()})));
  EXPECT_ANY_THROW(gemm(context, product(Precision::kFp32, {nullptr, y.data()})));
  EXPECT_ANY_THROW(gemm(context, product(Precision::kBf16, {values.data(), y.data()})));
  Gemm with_addend = product(Precision::kBf16, {nullptr, y.data()});
  with_addend.num_addends = 1;
  with_addend.addends[0] = one.data();
  EXPECT_ANY_THROW(gemm(context, with_addend));
}

}  // namespace
}  // namespace switchyard::kernels
