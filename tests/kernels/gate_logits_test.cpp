#include "kernels/api/gate_logits.hpp"

#include "core/error.hpp"
#include "rounded_array.hpp"

namespace switchyard::kernels {
namespace {

struct Sizes {
  Index tokens, width, num_experts;
};
std::ostream& operator<<(std::ostream& out, const Sizes& s) {
  return out << s.tokens << " tokens, width " << s.width << ", " << s.num_experts << " experts";
}

class GateProducts : public testing::TestWithParam<Sizes> {
 protected:
  const Index tokens = GetParam().tokens, width = GetParam().width, experts = GetParam().num_experts;
  const Floats x = random_floats(tokens * width, 1), weight = random_floats(experts * width, 2);
  const Floats d_logits = random_floats(tokens * experts, 3), before = random_floats(tokens * width, 4);

  // A row-major product in double, rows of A and B as stored: sum over i of a(row, i) b(i, col).
  template <typename A, typename B>
  static Sums product(Index rows, Index cols, Index sum_over, const A& a, const B& b) {
    Sums result;
    for (Index row = 0; row < rows; ++row)
      for (Index col = 0; col < cols; ++col) {
        Sum sum;
        for (Index i = 0; i < sum_over; ++i) sum += a(row, i) * b(i, col);
        result.push_back(sum);
      }
    return result;
  }
  static auto at(const Floats& values, Index cols) {
    return [&values, cols](Index row, Index col) { return double{values[static_cast<std::size_t>(row * cols + col)]}; };
  }

  // What the kernels write of x: logits, d_x, d_x added to what was there, d_W; d_W once more without a d_x.
  std::vector<Floats> run(const Context& context, const Operand& of_x) const {
    Output logits(tokens * experts), d_x(tokens * width), added(before), d_weight(experts * width),
        alone(experts * width);
    gate_logits(context, {.tokens = tokens,
                          .width = width,
                          .num_experts = experts,
                          .x = of_x,
                          .weight = weight.data(),
                          .logits = logits.data()});
    GateLogitsBackward backward{.tokens = tokens,
                                .width = width,
                                .num_experts = experts,
                                .x = of_x,
                                .weight = weight.data(),
                                .d_logits = d_logits.data(),
                                .d_x = d_x.data(),
                                .d_weight = d_weight.data()};
    gate_logits_backward(context, backward);
    backward.d_weight = alone.data();
    backward.d_x = nullptr;
    gate_logits_backward(context, backward);
    backward.d_x = added.data();
    backward.adds_to_d_x = true;
    gate_logits_backward(context, backward);
    EXPECT_TRUE(same_bits(d_weight.values(), alone.values()));
    return {logits.values(), d_x.values(), added.values(), d_weight.values()};
  }

  void expect_products(const std::vector<Floats>& outputs, const Floats& of_x) const {
    const auto x_at = at(of_x, width), w_at = at(weight, width), d_at = at(d_logits, experts);
    expect_sums(outputs[0], product(tokens, experts, width, x_at, [&](Index i, Index e) { return w_at(e, i); }),
                "logits");
    Sums d_x = product(tokens, width, experts, d_at, w_at);
    expect_sums(outputs[1], d_x, "d_x");
    for (std::size_t i = 0; i < d_x.size(); ++i) d_x[i] += before[i];
    expect_sums(outputs[2], d_x, "d_x, added");
    expect_sums(outputs[3],
                product(
                    experts, width, tokens, [&](Index e, Index t) { return d_at(t, e); }, x_at),
                "d_weight");
  }
};

TEST_P(GateProducts, OfFp32) {
  expect_products(on_all_threads([&](const Context& context) { return run(context, x.data()); }), x);
}

TEST_P(GateProducts, OfRoundedRows) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device is given fp32 alone";
  RoundedOutput of_x(x, width);
  const Operand operand(nullptr, of_x.data());
  if (experts > kMostExpertsOfRounded) {
    ThreadPool threads(1);
    EXPECT_THROW(run(test_context(threads), operand), Error);
    return;
  }
  const auto outputs = on_all_threads([&](const Context& context) { return run(context, operand); });
  expect_products(outputs, rounded(x));
}

// Arrays that may not be read by fours have the same bits.
TEST_P(GateProducts, DoNotHangOnAddresses) {
  Floats shifted(x.size() + 1);
  std::copy(x.begin(), x.end(), shifted.begin() + 1);
  on_all_threads([&](const Context& context) {
    const auto outputs = run(context, x.data()), of_shifted = run(context, shifted.data() + 1);
    for (std::size_t i = 0; i < outputs.size(); ++i) EXPECT_TRUE(same_bits(outputs[i], of_shifted[i])) << i;
    return outputs;
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, GateProducts,
                         testing::Values(Sizes{1, 1, 1}, Sizes{0, 25, 4}, Sizes{1, 300, 4}, Sizes{7, 25, 3},
                                         Sizes{35, 1, 17}, Sizes{130, 300, 4}, Sizes{61, 300, 8}, Sizes{33, 25, 17},
                                         Sizes{50, 300, 17}, Sizes{33, 300, 64}, Sizes{9, 1030, 8}, Sizes{600, 24, 4},
                                         Sizes{8300, 8, 1}));

}  // namespace
}  // namespace switchyard::kernels
