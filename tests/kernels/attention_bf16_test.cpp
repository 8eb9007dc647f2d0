// Attention whose products have bf16 operands, on the devices that have it, against a double-precision reference.
#include <array>

#include "kernel_test.hpp"
#include "kernels/api/attention.hpp"

namespace switchyard::kernels {
namespace {

struct Shape {
  Index samples, tokens, heads, head_size;
  float dropout;
};

struct Arrays {
  explicit Arrays(const Shape& of)
      : shape(of),
        qkv(random_floats(rows() * 3 * width(), 1, 3)),
        bias(random_floats(3 * width(), 2)),
        d_out(random_floats(rows() * width(), 3)),
        dropout(some_dropout(of.dropout)) {}
  Index rows() const { return shape.samples * shape.tokens; }
  Index width() const { return shape.heads * shape.head_size; }

  Shape shape;
  Floats qkv, bias, d_out;
  Dropout dropout;
};

struct Result {
  Doubles out, log_sum_exp, d_qkv;
};

// The equations of kernels/api/attention.hpp, and their derivatives.
class Reference {
 public:
  explicit Reference(const Arrays& arrays) : arrays_(arrays), shape_(arrays.shape) {
    const auto zeros = [](Index size) { return Doubles(static_cast<std::size_t>(size), 0.0); };
    result_ = {zeros(arrays.rows() * arrays.width()), zeros(arrays.rows() * shape_.heads),
               zeros(arrays.rows() * 3 * arrays.width())};
    for (Index s = 0; s < shape_.samples; ++s)
      for (Index h = 0; h < shape_.heads; ++h)
        for (Index i = 0; i < shape_.tokens; ++i) query(s, h, i);
  }
  const Result& result() const { return result_; }

 private:
  std::size_t place(Index sample, Index token, Index part, Index head, Index d) const {
    return static_cast<std::size_t>(((sample * shape_.tokens + token) * 3 + part) * arrays_.width() +
                                    head * shape_.head_size + d);
  }
  double value(Index sample, Index token, Index part, Index head, Index d) const {
    const std::size_t at = place(sample, token, part, head, d);
    return double{arrays_.qkv[at]} + double{arrays_.bias[at % arrays_.bias.size()]};
  }
  void query(Index s, Index h, Index i) {
    const auto of_out = [&](Index d) {
      return static_cast<std::size_t>((s * shape_.tokens + i) * arrays_.width() + h * shape_.head_size + d);
    };
    const double factor = 1 / std::sqrt(static_cast<double>(shape_.head_size));
    Doubles p, kept, d_p;
    double sum = 0, dot = 0;
    for (Index j = 0; j < shape_.tokens; ++j) {
      double score = 0, d_score = 0;
      for (Index d = 0; d < shape_.head_size; ++d) {
        score += factor * value(s, i, 0, h, d) * value(s, j, 1, h, d);
        d_score += double{arrays_.d_out[of_out(d)]} * value(s, j, 2, h, d);
      }
      kept.push_back(shape_.dropout == 0
                         ? 1
                         : reference_scale(arrays_.dropout, s * shape_.tokens + i, h * round_up(shape_.tokens, 8) + j));
      p.push_back(std::exp(score));
      d_p.push_back(d_score * kept.back());
      sum += p.back();
    }
    result_.log_sum_exp[static_cast<std::size_t>((s * shape_.heads + h) * shape_.tokens + i)] = std::log(sum);
    for (std::size_t j = 0; j < p.size(); ++j) dot += (p[j] /= sum) * d_p[j];
    for (Index j = 0; j < shape_.tokens; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const double d_score = factor * p[at] * (d_p[at] - dot);
      for (Index d = 0; d < shape_.head_size; ++d) {
        result_.out[of_out(d)] += p[at] * kept[at] * value(s, j, 2, h, d);
        result_.d_qkv[place(s, i, 0, h, d)] += d_score * value(s, j, 1, h, d);
        result_.d_qkv[place(s, j, 1, h, d)] += d_score * value(s, i, 0, h, d);
        result_.d_qkv[place(s, j, 2, h, d)] += p[at] * kept[at] * double{arrays_.d_out[of_out(d)]};
      }
    }
  }

  const Arrays& arrays_;
  Shape shape_;
  Result result_;
};

std::vector<Floats> run(const Context& context, const Arrays& arrays) {
  const auto& [samples, tokens, heads, head_size, probability] = arrays.shape;
  const Index rows = arrays.rows(), width = arrays.width();
  Output out(rows * width), log_sum_exp(rows * heads), d_qkv(rows * 3 * width), d_bias(3 * width);
  attention(context, {.samples = samples,
                      .tokens = tokens,
                      .heads = heads,
                      .head_size = head_size,
                      .qkv = arrays.qkv.data(),
                      .bias = arrays.bias.data(),
                      .out = out.data(),
                      .log_sum_exp = log_sum_exp.data(),
                      .dropout = arrays.dropout,
                      .precision = Precision::kBf16});
  attention_backward(context, {.samples = samples,
                               .tokens = tokens,
                               .heads = heads,
                               .head_size = head_size,
                               .qkv = arrays.qkv.data(),
                               .bias = arrays.bias.data(),
                               .out = out.data(),
                               .log_sum_exp = log_sum_exp.data(),
                               .d_out = arrays.d_out.data(),
                               .d_qkv = d_qkv.data(),
                               .d_bias = d_bias.data(),
                               .dropout = arrays.dropout,
                               .precision = Precision::kBf16});
  return {out.values(), log_sum_exp.values(), d_qkv.values(), d_bias.values()};
}

// The length of the difference, as a vector, over the expected one's.
double relative_error(const Floats& actual, const Doubles& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

class AttentionInBf16 : public testing::TestWithParam<Shape> {};

// A rounded operand is off by at most 2^-9 of itself. A score, of terms of about 3 over sqrt(head_size), is so off by
// some 3 * 2^-9, and by as much of themselves are probabilities; two more operands are rounded on the way to a
// gradient. Errors being independent, an array's is within a few times 2^-9 of its length. An element of few terms can
// be off by more, but not by a term that is missing or one too many: of 200 tokens one weighs more than 0.05.
TEST_P(AttentionInBf16, IsWithinTheRoundingOfItsOperands) {
  if (!reads_rounded(test_device(), Precision::kBf16)) GTEST_SKIP() << "this device's attention is in fp32 alone";
  const Arrays arrays(GetParam());
  const auto outputs = on_all_threads([&](const Context& context) { return run(context, arrays); });
  const Reference reference(arrays);
  const Result& expected = reference.result();
  constexpr double kUnit = 0x1p-9;
  if (arrays.rows() == 0) return;
  EXPECT_LE(relative_error(outputs[0], expected.out), 4 * kUnit);
  EXPECT_LE(relative_error(outputs[2], expected.d_qkv), 8 * kUnit);
  expect_near(outputs[0], expected.out, 25 * kUnit, "out");
  expect_near(outputs[1], expected.log_sum_exp, 12 * kUnit, "log_sum_exp");
  expect_near(outputs[2], expected.d_qkv, 25 * kUnit, "d_qkv");
  expect_sums(outputs[3], column_sums(outputs[2], 3 * arrays.width()), "d_bias");
}

// Of one tile of tokens, on GPUs 80, and of more.
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionInBf16,
                         testing::Values(Shape{0, 3, 2, 4, 0.1f}, Shape{1, 1, 1, 1, 0}, Shape{3, 1, 2, 128, 0.1f},
                                         Shape{2, 5, 3, 8, 0.1f}, Shape{2, 17, 1, 25, 0}, Shape{1, 65, 3, 25, 0.1f},
                                         Shape{1, 65, 2, 64, 0.1f}, Shape{1, 65, 1, 128, 0.2f},
                                         Shape{1, 130, 1, 25, 0.1f}, Shape{1, 130, 2, 8, 0}, Shape{1, 200, 1, 64, 0.1f},
                                         Shape{1, 200, 1, 1, 0.1f}, Shape{1, 200, 1, 128, 0.1f}));

TEST(AttentionInBf16Extremes, LargeScoresDoNotOverflowAndNanReachesEveryQuery) {
  if (!reads_rounded(test_device(), Precision::kBf16)) GTEST_SKIP() << "this device's attention is in fp32 alone";
  ThreadPool threads(1);
  Arrays arrays({1, 9, 1, 5, 0});
  for (float& value : arrays.qkv) value *= 1000;
  for (const Floats& output : run(test_context(threads), arrays))
    for (const float value : output) EXPECT_TRUE(std::isfinite(value));
  arrays.qkv[4 * 3 * 5 + 5] = kPoison;  // in a key
  const auto outputs = run(test_context(threads), arrays);
  for (const float value : outputs[0]) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace switchyard::kernels
