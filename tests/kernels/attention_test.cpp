#include "kernels/api/attention.hpp"

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

struct Case {
  Index samples, tokens, heads, head_size;
  float probability;
  std::size_t gradient_stride;  // how many elements lie between those held against finite differences
};
constexpr Case kCases[] = {{0, 3, 2, 4, 0.1f, 1},      {1, 1, 1, 1, 0, 1},        {2, 2, 3, 1, 0.5f, 1},
                           {1, 3, 2, 2, 0, 1},         {2, 8, 1, 8, 0.1f, 1},     {3, 17, 2, 3, 0.1f, 11},
                           {1, 65, 2, 25, 0.1f, 97},   {1, 16, 4, 16, 0, 7},      {2, 5, 1, 64, 0.2f, 7},
                           {1, 33, 1, 128, 0.1f, 397}, {1, 197, 1, 3, 0.1f, 197}, {1, 257, 1, 5, 0, 297}};

class AttentionCases : public testing::TestWithParam<Case> {
 protected:
  const Case shape = GetParam();
  const Index width = shape.heads * shape.head_size, rows = shape.samples * shape.tokens;
  const Floats qkv = random_floats(rows * 3 * width, 1, 3), bias = random_floats(3 * width, 2);
  const Floats d_out = random_floats(rows * width, 3);
  const Dropout dropout = some_dropout(shape.probability);

  double scale(Index sample, Index head, Index i, Index j) const {
    const Index column = head * round_up(shape.tokens, 8) + j;
    return shape.probability == 0 ? 1.0 : reference_scale(dropout, sample * shape.tokens + i, column);
  }

  struct Result {
    Doubles out, log_sum_exp;
  };
  Result reference(const Doubles& x, const Doubles& b) const {
    const Index tokens = shape.tokens, size = shape.head_size;
    Result result{Doubles(static_cast<std::size_t>(rows * width), 0.0),
                  Doubles(static_cast<std::size_t>(shape.samples * shape.heads * tokens))};
    const auto value = [&](Index sample, Index token, Index part, Index head, Index d) {
      const Index column = part * width + head * size + d;
      return x[static_cast<std::size_t>((sample * tokens + token) * 3 * width + column)] +
             b[static_cast<std::size_t>(column)];
    };
    Doubles p(static_cast<std::size_t>(tokens));
    for (Index s = 0; s < shape.samples; ++s)
      for (Index h = 0; h < shape.heads; ++h)
        for (Index i = 0; i < tokens; ++i) {
          double sum = 0;
          for (Index j = 0; j < tokens; ++j) {
            double dot = 0;
            for (Index d = 0; d < size; ++d) dot += value(s, i, 0, h, d) * value(s, j, 1, h, d);
            p[static_cast<std::size_t>(j)] = std::exp(dot / std::sqrt(static_cast<double>(size)));
            sum += p[static_cast<std::size_t>(j)];
          }
          result.log_sum_exp[static_cast<std::size_t>((s * shape.heads + h) * tokens + i)] = std::log(sum);
          for (Index j = 0; j < tokens; ++j)
            for (Index d = 0; d < size; ++d)
              result.out[static_cast<std::size_t>((s * tokens + i) * width + h * size + d)] +=
                  p[static_cast<std::size_t>(j)] / sum * scale(s, h, i, j) * value(s, j, 2, h, d);
        }
    return result;
  }

  // out, log_sum_exp, d_qkv, d_bias
  std::vector<Floats> run(const Context& context) const {
    Output out(rows * width), log_sum_exp(rows * shape.heads), d_qkv(rows * 3 * width), d_bias(3 * width);
    attention(context, {.samples = shape.samples,
                        .tokens = shape.tokens,
                        .heads = shape.heads,
                        .head_size = shape.head_size,
                        .qkv = qkv.data(),
                        .bias = bias.data(),
                        .out = out.data(),
                        .log_sum_exp = log_sum_exp.data(),
                        .dropout = dropout});
    attention_backward(context, {.samples = shape.samples,
                                 .tokens = shape.tokens,
                                 .heads = shape.heads,
                                 .head_size = shape.head_size,
                                 .qkv = qkv.data(),
                                 .bias = bias.data(),
                                 .out = out.data(),
                                 .log_sum_exp = log_sum_exp.data(),
                                 .d_out = d_out.data(),
                                 .d_qkv = d_qkv.data(),
                                 .d_bias = d_bias.data(),
                                 .dropout = dropout});
    return {out.values(), log_sum_exp.values(), d_qkv.values(), d_bias.values()};
  }
};

TEST_P(AttentionCases, ForwardAndBackwardMatchTheReference) {
  const auto outputs = on_all_threads([&](const Context& context) { return run(context); });
  const Doubles x = widen(qkv), b = widen(bias);
  const Result expected = reference(x, b);
  expect_near(outputs[0], expected.out, 3e-6, "out");
  expect_near(outputs[1], expected.log_sum_exp, 3e-6, "log_sum_exp");
  expect_gradient([&](const Doubles& at) { return reference(at, b).out; }, x, d_out, outputs[2], 2e-5, "d_qkv",
                  shape.gradient_stride);
  expect_gradient([&](const Doubles& at) { return reference(x, at).out; }, b, d_out, outputs[3], 4e-5, "d_bias",
                  shape.gradient_stride);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionCases, testing::ValuesIn(kCases));

class AttentionExtremes : public testing::Test {
 protected:
  static constexpr Index kTokens = 9, kSize = 5;
  ThreadPool threads{1};
  const Context context = test_context(threads);
  Floats qkv = random_floats(kTokens * 3 * kSize, 1), bias = Floats(3 * kSize, 0.0f);
  Floats run() {
    Output out(kTokens * kSize), log_sum_exp(kTokens);
    attention(context, {.samples = 1,
                        .tokens = kTokens,
                        .heads = 1,
                        .head_size = kSize,
                        .qkv = qkv.data(),
                        .bias = bias.data(),
                        .out = out.data(),
                        .log_sum_exp = log_sum_exp.data()});
    return out.values();
  }
};

TEST_F(AttentionExtremes, LargeScoresDoNotOverflow) {
  for (float& value : qkv) value *= 1000;
  for (const float value : run()) EXPECT_TRUE(std::isfinite(value));
}

TEST_F(AttentionExtremes, NanInOneKeyReachesEveryQuery) {
  qkv[4 * 3 * kSize + kSize] = kPoison;
  for (const float value : run()) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace switchyard::kernels
