// Operands of products on a device that multiplies them as the kernel before has rounded them: every kernel that can
// write one rounded writes what rounding its fp32 output gives, and a product of such operands has the bits of one that
// rounds them itself.
#include "kernels/api/operand.hpp"

#include <array>

#include "kernel_test.hpp"
#include "kernels/api/attention.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/layernorm.hpp"
#include "kernels/api/routing.hpp"
#include "rounded_array.hpp"

namespace switchyard::kernels {
namespace {

// kernel(context, output) writes an array (rows, cols) and returns its other outputs.
using Kernel = std::function<std::vector<Floats>(const Context&, const NewOperand&)>;
void expect_writes_rounded(Index rows, Index cols, const Kernel& kernel) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device rounds operands in the product";
  SCOPED_TRACE(testing::Message() << rows << " x " << cols);
  on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output fp32(rows * cols), fp32_of_both(rows * cols);
    RoundedOutput alone(rows, cols), rounded_of_both(rows, cols);
    std::vector<Floats> others = kernel(context, {fp32.data()});
    const std::vector<Floats> others_alone = kernel(context, {nullptr, alone.data()});
    const std::vector<Floats> others_of_both = kernel(context, {fp32_of_both.data(), rounded_of_both.data()});
    for (std::size_t i = 0; i < others.size(); ++i) {
      EXPECT_TRUE(same_bits(others[i], others_alone[i])) << "output " << i;
      EXPECT_TRUE(same_bits(others[i], others_of_both[i])) << "output " << i;
    }
    const Floats values = fp32.values();
    EXPECT_TRUE(same_bits(values, fp32_of_both.values()));
    EXPECT_TRUE(same_bits(rounded(values), alone.values()));
    EXPECT_TRUE(same_bits(rounded(values), rounded_of_both.values()));
    others.push_back(values);
    return others;
  });
}

class Rounded : public OfRowsAndCols {};

TEST_P(Rounded, LayerNorm) {
  expect_writes_rounded(rows, cols, [&](const Context& context, const NewOperand& y) -> std::vector<Floats> {
    Output mean(rows), rstd(rows);
    layernorm(context, {.rows = rows,
                        .cols = cols,
                        .x = x.data(),
                        .x_stride = cols,
                        .gamma = of_cols.data(),
                        .beta = of_cols.data(),
                        .y = y,
                        .mean = mean.data(),
                        .rstd = rstd.data()});
    return {mean.values(), rstd.values()};
  });
}

// Two slots for each row, in backward order.
TEST_P(Rounded, LayerNormToSlots) {
  Ints slots;
  for (Index i = 0; i < 2 * rows; ++i) slots.push_back(static_cast<std::int32_t>(2 * rows - 1 - i));
  expect_writes_rounded(2 * rows, cols, [&](const Context& context, const NewOperand& y) -> std::vector<Floats> {
    Output mean(rows), rstd(rows);
    layernorm(context, {.rows = rows,
                        .cols = cols,
                        .x = x.data(),
                        .x_stride = cols,
                        .gamma = of_cols.data(),
                        .beta = of_cols.data(),
                        .y = y,
                        .slots = {2, slots.data()},
                        .mean = mean.data(),
                        .rstd = rstd.data()});
    return {mean.values(), rstd.values()};
  });
}

TEST_P(Rounded, BiasActivationDropout) {
  expect_writes_rounded(rows, cols, [&](const Context& context, const NewOperand& y) -> std::vector<Floats> {
    bias_activation_dropout(
        context, {.rows = rows, .cols = cols, .x = x.data(), .bias = of_cols.data(), .y = y, .dropout = dropout});
    return {};
  });
}

TEST_P(Rounded, BiasActivationDropoutBackward) {
  expect_writes_rounded(rows, cols, [&](const Context& context, const NewOperand& d_x) -> std::vector<Floats> {
    Output d_bias(cols);
    bias_activation_dropout_backward(context, {.rows = rows,
                                               .cols = cols,
                                               .x = x.data(),
                                               .bias = of_cols.data(),
                                               .d_y = d_y.data(),
                                               .d_x = d_x,
                                               .d_bias = d_bias.data(),
                                               .dropout = dropout});
    return {d_bias.values()};
  });
}

TEST_P(Rounded, DropoutBackward) {
  expect_writes_rounded(rows, cols, [&](const Context& context, const NewOperand& d_x) -> std::vector<Floats> {
    Output d_bias(cols);
    dropout_backward(
        context,
        {.rows = rows, .cols = cols, .d_y = d_y.data(), .d_x = d_x, .d_bias = d_bias.data(), .dropout = dropout});
    return {d_bias.values()};
  });
}

TEST_P(Rounded, BiasAdd) {
  expect_writes_rounded(rows, cols, [&](const Context& context, const NewOperand& y) -> std::vector<Floats> {
    bias_add(context, {.rows = rows, .cols = cols, .x = x.data(), .bias = of_cols.data(), .y = y});
    return {};
  });
}

// Two slots for each row, in backward order.
TEST_P(Rounded, DispatchAndCombineBackward) {
  const Index num_slots = 2 * rows;
  Ints other_end;  // the slot of an assignment and the assignment of a slot
  for (Index i = 0; i < num_slots; ++i) other_end.push_back(static_cast<std::int32_t>(num_slots - 1 - i));
  expect_writes_rounded(num_slots, cols, [&](const Context& context, const NewOperand& slots) -> std::vector<Floats> {
    IntOutput ids(num_slots);
    dispatch(context, {.num_slots = num_slots,
                       .cols = cols,
                       .top_k = 2,
                       .rows = x.data(),
                       .assignment_of_slot = other_end.data(),
                       .slots = slots,
                       .slot_ids = ids.data()});
    return {ids.floats()};
  });
  const Floats outputs = random_floats(num_slots * cols, 4), weights = random_floats(num_slots, 5);
  expect_writes_rounded(num_slots, cols, [&](const Context& context, const NewOperand& d_slots) -> std::vector<Floats> {
    Output d_weights(num_slots);
    combine_backward(context, {.tokens = rows,
                               .cols = cols,
                               .top_k = 2,
                               .d_y = d_y.data(),
                               .slots = outputs.data(),
                               .slot_of_assignment = other_end.data(),
                               .weights = weights.data(),
                               .d_slots = d_slots,
                               .d_weights = d_weights.data(),
                               .dropout = dropout});
    return {d_weights.values()};
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Rounded,
                         testing::Values(Shape{0, 5}, Shape{1, 1}, Shape{3, 7}, Shape{17, 25}, Shape{40, 64},
                                         Shape{33, 300}, Shape{2, 1030}));

struct AttentionShape {
  Index samples, tokens, heads, size;
  Precision precision = Precision::kBf16;
  Index rows() const { return samples * tokens; }
  Index width() const { return heads * size; }
};

// out, log_sum_exp
std::vector<Floats> attend(const Context& context, const AttentionShape& shape, const Operand& qkv, const Floats& bias,
                           const NewOperand& out) {
  Output log_sum_exp(shape.rows() * shape.heads);
  attention(context, {.samples = shape.samples,
                      .tokens = shape.tokens,
                      .heads = shape.heads,
                      .head_size = shape.size,
                      .qkv = qkv,
                      .bias = bias.data(),
                      .out = out,
                      .log_sum_exp = log_sum_exp.data(),
                      .dropout = some_dropout(0.1f),
                      .precision = shape.precision});
  return {log_sum_exp.values()};
}

// d_bias; the log-sum-exp is made up
std::vector<Floats> attend_backward(const Context& context, const AttentionShape& shape, const Operand& qkv,
                                    const Floats& bias, const Operand& out, const Operand& d_out,
                                    const NewOperand& d_qkv) {
  const Floats log_sum_exp(static_cast<std::size_t>(shape.rows() * shape.heads), 3.0f);
  Output d_bias(3 * shape.width());
  attention_backward(context, {.samples = shape.samples,
                               .tokens = shape.tokens,
                               .heads = shape.heads,
                               .head_size = shape.size,
                               .qkv = qkv,
                               .bias = bias.data(),
                               .out = out,
                               .log_sum_exp = log_sum_exp.data(),
                               .d_out = d_out,
                               .d_qkv = d_qkv,
                               .d_bias = d_bias.data(),
                               .dropout = some_dropout(0.1f),
                               .precision = shape.precision});
  return {d_bias.values()};
}

class RoundedAttention : public testing::TestWithParam<AttentionShape> {
 protected:
  const AttentionShape shape = GetParam();
  const Index rows = shape.rows(), width = shape.width();
  const Floats qkv = random_floats(rows * 3 * width, 1, 3), bias = random_floats(3 * width, 2);
  const Floats d_out = random_floats(rows * width, 3), any = random_floats(rows * width, 4);
};

TEST_P(RoundedAttention, WritesRoundedWhatItWritesInFp32) {
  expect_writes_rounded(rows, width, [&](const Context& context, const NewOperand& out) {
    return attend(context, shape, qkv.data(), bias, out);
  });
  expect_writes_rounded(rows, 3 * width, [&](const Context& context, const NewOperand& d_qkv) {
    return attend_backward(context, shape, qkv.data(), bias, any.data(), d_out.data(), d_qkv);
  });
}

TEST_P(RoundedAttention, ReadsRoundedRowsAsTheValuesThatTheyHold) {
  if (!reads_rounded(test_device(), shape.precision)) GTEST_SKIP() << "attention in fp32 reads fp32";
  RoundedOutput qkv_rows(qkv, 3 * width), out_rows(any, width), d_out_rows(d_out, width);
  const Floats qkv_values = rounded(qkv), out_values = rounded(any), d_out_values = rounded(d_out);
  const Operand as_rows[] = {{nullptr, qkv_rows.data()}, {nullptr, out_rows.data()}, {nullptr, d_out_rows.data()}};
  const Operand as_values[] = {qkv_values.data(), out_values.data(), d_out_values.data()};
  const auto run = [&](const Context& context, const Operand& of_qkv, const Operand& of_out, const Operand& of_d_out) {
    Output out(rows * width), d_qkv(rows * 3 * width);
    std::vector<Floats> outputs = attend(context, shape, of_qkv, bias, out.data());
    outputs.push_back(attend_backward(context, shape, of_qkv, bias, of_out, of_d_out, d_qkv.data())[0]);
    outputs.push_back(out.values());
    outputs.push_back(d_qkv.values());
    return outputs;
  };
  on_all_threads([&](const Context& context) {
    const std::vector<Floats> expected = run(context, as_values[0], as_values[1], as_values[2]);
    for (const auto& other :
         {run(context, as_rows[0], as_rows[1], as_rows[2]), run(context, as_rows[0], as_values[1], as_values[2]),
          run(context, as_values[0], as_rows[1], as_values[2]), run(context, as_values[0], as_values[1], as_rows[2])})
      for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(same_bits(expected[i], other[i])) << i;
    return expected;
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RoundedAttention,
                         testing::Values(AttentionShape{2, 5, 1, 7}, AttentionShape{1, 33, 2, 25},
                                         AttentionShape{2, 9, 2, 64}, AttentionShape{1, 130, 1, 8},
                                         AttentionShape{2, 5, 1, 7, Precision::kFp32},
                                         AttentionShape{1, 65, 3, 25, Precision::kFp32},
                                         AttentionShape{2, 9, 2, 64, Precision::kFp32}));

// x (rows, in) and d_y (rows, out) as a linear layer's three products take them; 2100 rows are cut into slices.
TEST(RoundedOperands, GiveAProductTheSameBits) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device rounds operands in the product";
  for (const auto& [rows, in, out] : {std::array<Index, 3>{1, 1, 1}, {5, 7, 25}, {37, 300, 20}, {2100, 7, 9}}) {
    SCOPED_TRACE(testing::Message() << rows << " " << in << " " << out);
    const Floats x = random_floats(rows * in, 1), d_y = random_floats(rows * out, 2), w = random_floats(out * in, 3);
    RoundedOutput x_rounded(x, in), d_y_rounded(d_y, out);
    const LinearProducts linear{rows, in, out, Precision::kBf16};
    const auto run = [&, rows = rows, in = in, out = out](const Context& context, const Operand& of_x,
                                                          const Operand& of_d_y) -> std::vector<Floats> {
      Output y(rows * out), d_x(rows * in), d_w(out * in);
      const Gemm products[] = {linear.forward(of_x, w.data(), y.data()),
                               linear.input_gradient(of_d_y, w.data(), d_x.data()),
                               linear.weight_gradient(of_d_y, of_x, d_w.data())};
      for (const Gemm& product : products) gemm(context, product);
      return {y.values(), d_x.values(), d_w.values()};
    };
    const auto outputs = on_all_threads([&](const Context& context) {
      std::vector<Floats> all = run(context, x.data(), d_y.data());
      const Operand only_x{nullptr, x_rounded.data()}, only_d_y{nullptr, d_y_rounded.data()};
      for (const auto& others :
           {run(context, only_x, d_y.data()), run(context, x.data(), only_d_y), run(context, only_x, only_d_y)})
        all.insert(all.end(), others.begin(), others.end());
      return all;
    });
    for (std::size_t i = 0; i < outputs.size(); ++i)
      EXPECT_TRUE(same_bits(outputs[i % 3], outputs[i])) << "product " << i % 3 << ", operands " << i / 3;
  }
}

TEST(RoundedOperands, AreNotCopiedByTheProduct) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device rounds operands in the product";
  constexpr Index kRows = 6, kIn = 25, kOut = 7;
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats x = random_floats(kRows * kIn, 1), d_y = random_floats(kRows * kOut, 2);
  RoundedOutput x_rounded(x, kIn), d_y_rounded(d_y, kOut);
  Output d_w(kOut * kIn);
  const LinearProducts linear{kRows, kIn, kOut, Precision::kBf16};
  const auto copied = [&](const Operand& of_d_y, const Operand& of_x) {
    const Index before = staged_bytes(context.device);
    gemm(context, linear.weight_gradient(of_d_y, of_x, d_w.data()));
    return staged_bytes(context.device) - before;
  };
  const Operand only_x{nullptr, x_rounded.data()}, only_d_y{nullptr, d_y_rounded.data()};
  EXPECT_EQ(copied(only_d_y, only_x), 0);
  EXPECT_EQ(copied(d_y.data(), only_x), kRows * (7 * 4 + 8 * 2));
  EXPECT_EQ(copied(only_d_y, x.data()), kRows * (25 * 4 + 32 * 2));
}

TEST(RoundedOperands, AreRefusedByAProductInFp32) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device rounds operands in the product";
  ThreadPool threads(1);
  RoundedOutput x(1, 1);
  const float w = 1;
  Output y(1);
  EXPECT_ANY_THROW(gemm(test_context(threads), LinearProducts{1, 1, 1}.forward({nullptr, x.data()}, &w, y.data())));
}

TEST(RoundedOperands, AreWantedInBf16OnGpusAlone) {
  EXPECT_TRUE(reads_rounded(Device::kCuda, Precision::kBf16));
  EXPECT_FALSE(reads_rounded(Device::kCuda, Precision::kFp32));
  EXPECT_FALSE(reads_rounded(Device::kCpu, Precision::kBf16));
}

}  // namespace
}  // namespace switchyard::kernels
