// Lists of arrays, as the segments of experts: each has the bits that it has alone, whatever its neighbours.
#include <array>

#include "kernel_test.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard::kernels {
namespace {

struct Segment {
  Index rows, cols;
  Activation activation;
};

// Empty ones, more than one launch takes, and neighbours of other widths and functions.
std::vector<Segment> segments() {
  std::vector<Segment> all = {{130, 52, Activation::kGelu}, {0, 52, Activation::kGelu},  {1, 52, Activation::kGelu},
                              {0, 17, Activation::kGelu},   {33, 17, Activation::kRelu}, {600, 17, Activation::kRelu}};
  for (Index rows = 0; rows < 40; ++rows) all.push_back({rows, 20, Activation::kGelu});
  all.push_back({5, 2100, Activation::kGelu});
  return all;
}

// All lie one behind the other, biases and their gradients, too.
struct Arrays {
  Index size = 0, cols = 0;
  std::vector<Index> first, first_col;
  Arrays() {
    for (const Segment& s : segments()) {
      first.push_back(size);
      first_col.push_back(cols);
      size += s.rows * s.cols;
      cols += s.cols;
    }
  }
};

// kernel(context, list), of one list or of as many as there are arguments.
template <typename Arguments, typename Kernel>
void run(const Context& context, const std::vector<Arguments>& list, bool together, const Kernel& kernel) {
  if (together) return kernel(context, list);
  for (const Arguments& one : list) kernel(context, {one});
}

TEST(Segments, AreActivatedAsEachAlone) {
  const Arrays at;
  const Floats x = random_floats(at.size, 1, 4), bias = random_floats(at.cols, 2);
  const auto activated = [&](const Context& context, bool together) {
    Output y(at.size);
    std::vector<BiasActivationDropout> list;
    for (const Segment& s : segments()) {
      const std::size_t i = list.size();
      Dropout dropout = some_dropout(0.1f);
      dropout.key.layer = static_cast<std::uint32_t>(i);
      list.push_back({.rows = s.rows,
                      .cols = s.cols,
                      .activation = s.activation,
                      .x = x.data() + at.first[i],
                      .bias = bias.data() + at.first_col[i],
                      .y = y.data() + at.first[i],
                      .dropout = dropout});
    }
    run(context, list, together,
        [](const Context& with, const std::vector<BiasActivationDropout>& of) { bias_activation_dropout(with, of); });
    return y.values();
  };
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    return {activated(context, true), activated(context, false)};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1]));
}

// With their sums over rows; an empty segment's are zeros.
TEST(Segments, AreDifferentiatedAndSummedAsEachAlone) {
  const Arrays at;
  const Floats x = random_floats(at.size, 1, 4), bias = random_floats(at.cols, 2), d_y = random_floats(at.size, 3);
  const auto outputs_of = [&](const Context& context, bool together) -> std::vector<Floats> {
    Output d_x(at.size), d_bias(at.cols), sums(at.cols);
    std::vector<BiasActivationDropoutBackward> backward;
    std::vector<ColumnSum> columns;
    for (const Segment& s : segments()) {
      const std::size_t i = columns.size();
      columns.push_back(
          {.rows = s.rows, .cols = s.cols, .x = d_y.data() + at.first[i], .sums = sums.data() + at.first_col[i]});
      backward.push_back({.rows = s.rows,
                          .cols = s.cols,
                          .activation = s.activation,
                          .x = x.data() + at.first[i],
                          .bias = bias.data() + at.first_col[i],
                          .d_y = d_y.data() + at.first[i],
                          .d_x = d_x.data() + at.first[i],
                          .d_bias = d_bias.data() + at.first_col[i]});
    }
    run(context, columns, together,
        [](const Context& with, const std::vector<ColumnSum>& of) { column_sum(with, of); });
    run(context, backward, together, [](const Context& with, const std::vector<BiasActivationDropoutBackward>& of) {
      bias_activation_dropout_backward(with, of);
    });
    return {d_x.values(), d_bias.values(), sums.values()};
  };
  on_all_threads([&](const Context& context) {
    std::vector<Floats> together = outputs_of(context, true);
    const std::vector<Floats> alone = outputs_of(context, false);
    for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_TRUE(same_bits(together[i], alone[i])) << "output " << i;
    const Index empty = at.first_col[1];
    for (Index c = empty; c < empty + 52; ++c) EXPECT_EQ(together[1][static_cast<std::size_t>(c)], 0) << c;
    return together;
  });
}

}  // namespace
}  // namespace switchyard::kernels
