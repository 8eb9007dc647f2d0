#include "kernels/api/patch_conv.hpp"

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

double value_of(Activation activation, double u) {
  switch (activation) {
    case Activation::kGelu:
      return u / 2 * (1 + std::erf(u / std::sqrt(2.0)));
    case Activation::kRelu:
      return u > 0 ? u : 0;
    case Activation::kCube:
      return u * u * u;
    case Activation::kIdentity:
      return u;
  }
  return 0;
}

struct Shape {
  Index rows, patches, filters, classes;
};

class PatchPools : public testing::TestWithParam<std::pair<Shape, Activation>> {};

// y of hidden, then bias, one after the other.
Doubles reference(const Shape& shape, Activation activation, const Doubles& inputs) {
  const Index hidden_size = shape.rows * shape.patches * shape.filters, share = shape.filters / shape.classes;
  Doubles y(static_cast<std::size_t>(shape.rows * shape.classes));
  for (Index i = 0; i < hidden_size; ++i) {
    const Index row = i / (shape.patches * shape.filters), filter = i % shape.filters;
    const double z = inputs[static_cast<std::size_t>(i)] + inputs[static_cast<std::size_t>(hidden_size + filter)];
    y[static_cast<std::size_t>(row * shape.classes + filter / share)] += value_of(activation, z);
  }
  return y;
}

TEST_P(PatchPools, MatchTheReference) {
  const auto& [shape, activation] = GetParam();
  const Index hidden_size = shape.rows * shape.patches * shape.filters;
  const Floats hidden = random_floats(hidden_size, 1, 2), bias = random_floats(shape.filters, 2),
               d_y = random_floats(shape.rows * shape.classes, 3);
  const auto outputs = on_all_threads([&, &shape = shape, activation = activation](const Context& context) {
    Output y(shape.rows * shape.classes), d_hidden(hidden_size), d_bias(shape.filters), in_place(hidden);
    patch_pool(context, {.rows = shape.rows,
                         .patches = shape.patches,
                         .filters = shape.filters,
                         .classes = shape.classes,
                         .activation = activation,
                         .hidden = hidden.data(),
                         .bias = bias.data(),
                         .y = y.data()});
    PatchPoolBackward backward{.rows = shape.rows,
                               .patches = shape.patches,
                               .filters = shape.filters,
                               .classes = shape.classes,
                               .activation = activation,
                               .hidden = hidden.data(),
                               .bias = bias.data(),
                               .d_y = d_y.data(),
                               .d_hidden = d_hidden.data(),
                               .d_bias = d_bias.data()};
    patch_pool_backward(context, backward);
    backward.hidden = backward.d_hidden = in_place.data();
    patch_pool_backward(context, backward);
    return std::vector<Floats>{y.values(), d_hidden.values(), d_bias.values(), in_place.values()};
  });
  Doubles inputs = widen(hidden);
  inputs.insert(inputs.end(), bias.begin(), bias.end());
  expect_near(outputs[0], reference(shape, activation, inputs), 1e-5, "y");
  Floats d_inputs = outputs[1];
  d_inputs.insert(d_inputs.end(), outputs[2].begin(), outputs[2].end());
  if (activation != Activation::kRelu)  // whose slope has a step
    expect_gradient(
        [&, &shape = shape, activation = activation](const Doubles& x) { return reference(shape, activation, x); },
        inputs, d_y, d_inputs, 1e-4, "d_hidden, d_bias", 7);
  EXPECT_TRUE(same_bits(outputs[1], outputs[3])) << "d_hidden over hidden";
}

std::vector<std::pair<Shape, Activation>> all_cases() {
  std::vector<std::pair<Shape, Activation>> cases;
  for (const Shape& shape :
       {Shape{0, 4, 16, 2}, Shape{1, 1, 1, 1}, Shape{3, 4, 16, 2}, Shape{67, 3, 21, 3}, Shape{33, 5, 6, 2}})
    for (const Activation activation : {Activation::kGelu, Activation::kRelu, Activation::kCube, Activation::kIdentity})
      cases.push_back({shape, activation});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Shapes, PatchPools, testing::ValuesIn(all_cases()));

TEST(PatchSums, AddPatchesInOrder) {
  for (const Index rows : {0, 1, 65}) {
    constexpr Index kPatches = 3, kCols = 19;
    const Floats x = random_floats(rows * kPatches * kCols, 4, 10);
    const Floats y = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output output(rows * kCols);
      patch_sum(context, {.rows = rows, .patches = kPatches, .cols = kCols, .x = x.data(), .y = output.data()});
      return {output.values()};
    })[0];
    Floats expected;
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < kCols; ++i) {
        const auto at = [&](Index p) { return x[static_cast<std::size_t>((r * kPatches + p) * kCols + i)]; };
        expected.push_back(0.0f + at(0) + at(1) + at(2));
      }
    EXPECT_TRUE(same_bits(y, expected)) << rows;
  }
}

}  // namespace
}  // namespace switchyard::kernels
