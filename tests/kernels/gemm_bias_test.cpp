// A product that adds a bias to every row.
#include <array>
#include <cmath>

#include "kernel_test.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/memory.hpp"
#include "rounded_array.hpp"

namespace switchyard::kernels {
namespace {

struct Case {
  Index rows, in, out;  // rows * out is small and `in` long where the sum is cut
};
constexpr Case kCases[] = {{0, 3, 4},     {5, 0, 7},     {1, 1, 1},     {2, 17, 3},   {17, 64, 25},
                           {65, 300, 40}, {40, 33, 300}, {5, 3001, 12}, {5, 2048, 11}};

Floats whole_numbers(Index size, std::uint32_t seed, float most) {
  Floats values = random_floats(size, seed, most);
  for (float& value : values) value = std::round(value);
  return values;
}

// Sums of whole numbers are exact in every order, and halves and quarters of the bias still are, so that C is known to
// the bit. Of the numbers themselves bf16 keeps all bits.
struct Layer {
  explicit Layer(const Case& of)
      : shape(of),
        x(whole_numbers(of.rows * of.in, 1, 3)),
        w(whole_numbers(of.out * of.in, 2, 3)),
        bias(whole_numbers(of.out, 3, 4000)) {
    for (float& b : bias) b /= 4;  // up to 12 bits, of which bf16 keeps 8
  }

  Gemm product(Precision precision, const NewOperand& y, const float* of_bias) const {
    return LinearProducts{shape.rows, shape.in, shape.out, precision}.forward(x.data(), w.data(), y, of_bias);
  }
  Floats expected(const Floats& added) const {
    Floats y;
    for (Index r = 0; r < shape.rows; ++r)
      for (Index c = 0; c < shape.out; ++c) {
        float sum = 0;
        for (Index i = 0; i < shape.in; ++i)
          sum += x[static_cast<std::size_t>(r * shape.in + i)] * w[static_cast<std::size_t>(c * shape.in + i)];
        y.push_back(sum + added[static_cast<std::size_t>(c)]);
      }
    return y;
  }

  Case shape;
  Floats x, w, bias;
};

// The same with B and the bias packed.
Gemm packed(const Context& context, Gemm product, Array<std::byte>& room) {
  room = Array<std::byte>(context.device, packed_b_bytes(context, product));
  pack_b(context, product, room.data());
  product.packed_b = room.data();
  return product;
}

class GemmBias : public testing::TestWithParam<Case> {};

TEST_P(GemmBias, IsAddedToTheSums) {
  const Layer layer(GetParam());
  for (const Precision precision : {Precision::kFp32, Precision::kTf32, Precision::kBf16}) {
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      const Index size = layer.shape.rows * layer.shape.out;
      Array<std::byte> room;
      Output y(size), of_packed(size);
      gemm(context, layer.product(precision, y.data(), layer.bias.data()));
      gemm(context, packed(context, layer.product(precision, of_packed.data(), layer.bias.data()), room));
      return {y.values(), of_packed.values()};
    });
    EXPECT_TRUE(same_bits(outputs[0], layer.expected(layer.bias)));
    EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "packed";
  }
}

TEST_P(GemmBias, IsRoundedWhereCIs) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device is given fp32 alone";
  const Layer layer(GetParam());
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Array<std::byte> room;
    RoundedOutput y(layer.shape.rows, layer.shape.out), of_packed(layer.shape.rows, layer.shape.out);
    const auto product = [&](Bf16* to) { return layer.product(Precision::kBf16, {nullptr, to}, layer.bias.data()); };
    gemm(context, product(y.data()));
    gemm(context, packed(context, product(of_packed.data()), room));
    EXPECT_TRUE(y.padding_is_untouched() && of_packed.padding_is_untouched());
    return {y.values(), of_packed.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], rounded(layer.expected(rounded(layer.bias)))));
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "packed";
}

INSTANTIATE_TEST_SUITE_P(Shapes, GemmBias, testing::ValuesIn(kCases));

// A weight packed once, with its bias, for the forward product, and read by the product of the backward pass.
TEST(PackedForm, WithABiasServesProductsWithoutOne) {
  if (!device_takes_rounded()) GTEST_SKIP() << "this device packs no bias";
  constexpr Case kShape = {37, 30, 45};
  const Layer layer(kShape);
  const LinearProducts products{kShape.rows, kShape.in, kShape.out, Precision::kBf16};
  const Floats d_y = random_floats(kShape.rows * kShape.out, 4);
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Array<std::byte> room;
    RoundedOutput y(kShape.rows, kShape.out);
    const Gemm forward = packed(context, layer.product(Precision::kBf16, {nullptr, y.data()}, layer.bias.data()), room);
    Output d_x(kShape.rows * kShape.in), of_packed(kShape.rows * kShape.in);
    Gemm backward = products.input_gradient(d_y.data(), layer.w.data(), d_x.data());
    EXPECT_EQ(packed_form(context, backward).transposed, packed_form(context, forward).transposed);
    gemm(context, backward);
    backward.c = of_packed.data();
    backward.packed_b = room.data();
    gemm(context, backward);
    return {d_x.values(), of_packed.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1]));
}

// As those of experts lie one behind the other.
TEST(GemmBiasBits, DoNotDependOnWhereTheBiasLies) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  for (const Index out : {44, 45}) {
    const Floats x = random_floats(37 * 30, 1), w = random_floats(out * 30, 2), bias = random_floats(out, 3);
    Floats first;
    for (std::size_t offset = 0; offset < 5; ++offset) {
      Floats moved(bias.size() + offset);
      std::copy(bias.begin(), bias.end(), moved.begin() + static_cast<std::ptrdiff_t>(offset));
      Output y(37 * out);
      gemm(context, LinearProducts{37, 30, out}.forward(x.data(), w.data(), y.data(), moved.data() + offset));
      if (offset == 0) first = y.values();
      EXPECT_TRUE(same_bits(y.values(), first)) << out << ", offset " << offset;
    }
  }
}

// In which order a library would add the two is not said.
TEST(GemmBiasBits, AreRefusedWithAddends) {
  ThreadPool threads(1);
  const Floats one(1, 1.0f);
  Output y(1);
  Gemm product = LinearProducts{1, 1, 1}.forward(one.data(), one.data(), y.data(), one.data());
  product.num_addends = 1;
  product.addends[0] = one.data();
  EXPECT_ANY_THROW(gemm(test_context(threads), product));
}

}  // namespace
}  // namespace switchyard::kernels
