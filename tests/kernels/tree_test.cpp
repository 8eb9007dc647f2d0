#include "kernels/api/tree.hpp"

#include <algorithm>

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

struct Case {
  Index rows, depth;
  float leak;
};
constexpr Case kCases[] = {{0, 2, 0},     {1, 1, 0},   {3, 2, 0.3f}, {17, 3, 0},  {33, 4, 0},
                           {65, 5, 0.1f}, {130, 1, 1}, {25, 7, 0},   {2, 6, 0.5f}};

constexpr RandomKey kKey{.seed = 0x123456789abcdef0, .purpose = Purpose::kRegionLeak, .layer = 3, .step = 9};
constexpr std::uint32_t kFirstRow = 4000000000u;

class Tree : public testing::TestWithParam<Case> {
 protected:
  const Case shape = GetParam();
  const Index nodes = num_nodes(shape.depth), leaves = num_leaves(shape.depth);
  // Some nodes are saturated beyond where the entropy is clamped.
  const Floats logits = random_floats(shape.rows * nodes, 1, 20), bias = random_floats(nodes, 2);

  double at(const Doubles& z, Index row, Index node) const { return z[static_cast<std::size_t>(row * nodes + node)]; }
  bool swapped(Index row, Index node) const {
    const auto words =
        random_words(kKey, kFirstRow + static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(node / 4));
    return to_unit_float(words[static_cast<std::size_t>(node % 4)]) < shape.leak;
  }
  // z: (rows, nodes) with bias
  Doubles with_bias(const Doubles& from) const {
    Doubles z = from;
    for (std::size_t i = 0; i < z.size(); ++i) z[i] += bias[i % static_cast<std::size_t>(nodes)];
    return z;
  }
  double choice(const Doubles& z, Index row, Index node, bool hard) const {
    const double s = hard ? at(z, row, node) >= 0 : 1 / (1 + std::exp(-at(z, row, node)));
    return swapped(row, node) ? 1 - s : s;
  }
  // By each leaf's own path from the root.
  Doubles mixture(const Doubles& z, bool hard) const {
    Doubles shares;
    for (Index row = 0; row < shape.rows; ++row)
      for (Index leaf = 0; leaf < leaves; ++leaf) {
        double share = 1;
        for (Index level = 0; level < shape.depth; ++level) {
          const Index node = (Index{1} << level) - 1 + (leaf >> (shape.depth - level));
          const bool right = leaf >> (shape.depth - level - 1) & 1;
          const double c = choice(z, row, node, hard);
          share *= right ? c : 1 - c;
        }
        shares.push_back(share);
      }
    return shares;
  }
  Doubles entropies(const Doubles& z) const {
    Doubles sums(static_cast<std::size_t>(nodes));
    for (Index row = 0; row < shape.rows; ++row)
      for (Index node = 0; node < nodes; ++node) {
        const double p = std::clamp(1 / (1 + std::exp(-at(z, row, node))), 1e-6, 1 - 1e-6);
        sums[static_cast<std::size_t>(node)] -= p * std::log(p) + (1 - p) * std::log(1 - p);
      }
    return sums;
  }
};

TEST_P(Tree, MixtureIsTheProductAlongEachPath) {
  for (const bool hard : {false, true}) {
    SCOPED_TRACE(hard);
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output choices(shape.rows * nodes), shares(shape.rows * leaves), entropy(nodes);
      TreeMixture args{.rows = shape.rows,
                       .depth = shape.depth,
                       .logits = logits.data(),
                       .bias = bias.data(),
                       .hard = hard,
                       .leak = shape.leak,
                       .key = kKey,
                       .first_row = kFirstRow,
                       .choices = choices.data(),
                       .mixture = shares.data(),
                       .entropy_sums = entropy.data()};
      tree_mixture(context, args);
      return {choices.values(), shares.values(), entropy.values()};
    });
    const Doubles z = with_bias(widen(logits));
    Doubles choices;
    for (Index row = 0; row < shape.rows; ++row)
      for (Index node = 0; node < nodes; ++node) choices.push_back(choice(z, row, node, hard));
    expect_near(outputs[0], choices, 2e-6, "choices");
    expect_near(outputs[1], mixture(z, hard), 2e-6, "mixture");
    expect_near(outputs[2], entropies(z), 5e-6, "entropy");
    for (Index row = 0; row < shape.rows; ++row) {
      double sum = 0;
      for (Index leaf = 0; leaf < leaves; ++leaf) sum += outputs[1][static_cast<std::size_t>(row * leaves + leaf)];
      EXPECT_NEAR(sum, 1, 1e-6);
    }
  }
}

TEST_P(Tree, MixtureBackward) {
  const Floats moderate = random_floats(shape.rows * nodes, 3, 4), d_mixture = random_floats(shape.rows * leaves, 4);
  constexpr float kEntropyScale = 0.7f;
  const Doubles z = with_bias(widen(moderate));
  Floats choices;
  for (Index row = 0; row < shape.rows; ++row)
    for (Index node = 0; node < nodes; ++node) choices.push_back(static_cast<float>(choice(z, row, node, false)));
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output d_logits(shape.rows * nodes), in_place(moderate), d_bias(nodes);
    TreeMixtureBackward args{.rows = shape.rows,
                             .depth = shape.depth,
                             .logits = moderate.data(),
                             .bias = bias.data(),
                             .choices = choices.data(),
                             .leak = shape.leak,
                             .key = kKey,
                             .first_row = kFirstRow,
                             .entropy_scale = kEntropyScale,
                             .d_mixture = d_mixture.data(),
                             .d_logits = d_logits.data(),
                             .d_bias = d_bias.data()};
    tree_mixture_backward(context, args);
    args.logits = args.d_logits = in_place.data();
    tree_mixture_backward(context, args);
    return {d_logits.values(), in_place.values(), d_bias.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "in place";
  expect_sums(outputs[2], column_sums(outputs[0], nodes), "d_bias");

  Floats d_outputs = d_mixture;
  d_outputs.insert(d_outputs.end(), static_cast<std::size_t>(nodes), kEntropyScale);
  const auto forward = [&](const Doubles& x) {
    const Doubles moved = with_bias(x);
    Doubles all = mixture(moved, false);
    const Doubles entropy = entropies(moved);
    all.insert(all.end(), entropy.begin(), entropy.end());
    return all;
  };
  const std::size_t stride = outputs[0].size() > 300 ? 61 : 1;
  expect_gradient(forward, widen(moderate), d_outputs, outputs[0], 1e-5, "d_logits", stride);
}

TEST(TreeEntropy, OfASaturatedNodeHasNoSlope) {
  const Floats logits{40, -40}, bias{0}, choices{1, 0}, d_mixture{0, 0, 0, 0};
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output d_logits(2), d_bias(1);
    tree_mixture_backward(context, {.rows = 2,
                                    .depth = 1,
                                    .logits = logits.data(),
                                    .bias = bias.data(),
                                    .choices = choices.data(),
                                    .entropy_scale = 1,
                                    .d_mixture = d_mixture.data(),
                                    .d_logits = d_logits.data(),
                                    .d_bias = d_bias.data()});
    return {d_logits.values()};
  });
  EXPECT_EQ(outputs[0], (Floats{0, 0}));
}

INSTANTIATE_TEST_SUITE_P(Shapes, Tree, testing::ValuesIn(kCases), [](const auto& each) {
  return "of" + std::to_string(each.index) + "rows" + std::to_string(each.param.rows) + "depth" +
         std::to_string(each.param.depth);
});

struct LeafCase {
  Index rows, depth, width, leaf_width, out;
};
constexpr LeafCase kLeafCases[] = {{0, 2, 5, 3, 2},      {1, 1, 1, 1, 1},    {7, 2, 17, 3, 10},
                                   {33, 3, 25, 8, 25},   {65, 4, 100, 1, 7}, {40, 2, 128, 32, 128},
                                   {300, 2, 33, 16, 65}, {37, 6, 40, 2, 20}, {260, 1, 784, 6, 10},
                                   {90, 7, 128, 1, 128}, {2, 1, 3, 7300, 5}};

class Leaves : public testing::TestWithParam<LeafCase> {
 protected:
  TreeDescent descent_of(Index first_row, Index rows, std::int32_t* leaf) const {
    return {.rows = rows,
            .width = shape.width,
            .depth = shape.depth,
            .x = x.data() + first_row * shape.width,
            .weight = weight.data(),
            .bias = bias.data(),
            .leaf = leaf};
  }
  LeafForward visit_of(Index leaf, Index first_row, Index rows, float* y) const {
    return {.rows = rows,
            .width = shape.width,
            .leaf_width = shape.leaf_width,
            .out = shape.out,
            .x = x.data() + first_row * shape.width,
            .w1 = w1.data() + leaf * shape.leaf_width * shape.width,
            .b1 = b1.data() + leaf * shape.leaf_width,
            .w2 = w2.data() + leaf * shape.leaf_width * shape.out,
            .b2 = b2.data() + leaf * shape.out,
            .y = y};
  }

  const LeafCase shape = GetParam();
  const Index nodes = num_nodes(shape.depth), leaves = num_leaves(shape.depth);
  const Floats x = random_floats(shape.rows * shape.width, 1), weight = random_floats(nodes * shape.width, 2),
               bias = random_floats(nodes, 3, 0.1f), w1 = random_floats(leaves * shape.leaf_width * shape.width, 4),
               b1 = random_floats(leaves * shape.leaf_width, 5),
               w2 = random_floats(leaves * shape.leaf_width * shape.out, 6), b2 = random_floats(leaves * shape.out, 7);
};

TEST_P(Leaves, DescentTurnsRightAtNodesThatAreNotNegative) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    IntOutput leaf(shape.rows);
    tree_descent(context, descent_of(0, shape.rows, leaf.data()));
    return {leaf.floats()};
  });
  for (Index row = 0; row < shape.rows; ++row) {
    Index place = 0;  // within its level
    for (Index level = 0; level < shape.depth; ++level) {
      const Index node = (Index{1} << level) - 1 + place;
      double z = bias[static_cast<std::size_t>(node)];
      for (Index i = 0; i < shape.width; ++i)
        z += double{x[static_cast<std::size_t>(row * shape.width + i)]} *
             weight[static_cast<std::size_t>(node * shape.width + i)];
      ASSERT_GT(std::fabs(z), 1e-5) << "too close to call";
      place = 2 * place + (z >= 0);
    }
    EXPECT_EQ(outputs[0][static_cast<std::size_t>(row)], static_cast<float>(place)) << "row " << row;
  }
}

TEST_P(Leaves, ForwardOfOneLeaf) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(shape.rows * shape.out);
    const LeafForward visit = visit_of(0, 0, shape.rows, y.data());
    leaf_forward(context, std::span(&visit, 1));
    return {y.values()};
  });
  Sums expected;
  for (Index row = 0; row < shape.rows; ++row) {
    Sums y = begun_with(Floats(b2.begin(), b2.begin() + shape.out));
    for (Index h = 0; h < shape.leaf_width; ++h) {
      Sum u;
      u += b1[static_cast<std::size_t>(h)];
      for (Index i = 0; i < shape.width; ++i)
        u += double{x[static_cast<std::size_t>(row * shape.width + i)]} *
             w1[static_cast<std::size_t>(h * shape.width + i)];
      for (Index o = 0; o < shape.out; ++o) {
        const double w = w2[static_cast<std::size_t>(h * shape.out + o)];
        y[static_cast<std::size_t>(o)].add(std::max(u.value, 0.0) * w, u.bound(1) * std::fabs(w));
      }
    }
    expected.insert(expected.end(), y.begin(), y.end());
  }
  expect_sums(outputs[0], expected, "y");
}

// A row's path and its leaf, each by itself, give the bits of all rows together.
TEST_P(Leaves, ForwardOfTheWholeTreeIsThatOfEachRowsLeaf) {
  const Floats residual = random_floats(shape.rows * shape.out, 8);
  const TreeForward args{.rows = shape.rows,
                         .width = shape.width,
                         .depth = shape.depth,
                         .leaf_width = shape.leaf_width,
                         .out = shape.out,
                         .x = x.data(),
                         .weight = weight.data(),
                         .bias = bias.data(),
                         .w1 = w1.data(),
                         .b1 = b1.data(),
                         .w2 = w2.data(),
                         .b2 = b2.data()};
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output alone(shape.rows * shape.out), added(shape.rows * shape.out);
    TreeForward with = args;
    with.y = alone.data();
    tree_forward(context, with);
    with.residual = residual.data();
    with.y = added.data();
    tree_forward(context, with);
    return {alone.values(), added.values()};
  });

  Floats alone, added;
  ThreadPool one_thread(1);
  const Context context = test_context(one_thread);
  for (Index row = 0; row < shape.rows; ++row) {
    Ints leaf_of_row{-1};
    tree_descent(context, descent_of(row, 1, leaf_of_row.data()));
    synchronize(context);
    const std::int32_t leaf = leaf_of_row[0];
    ASSERT_GE(leaf, 0);
    ASSERT_LT(leaf, leaves);
    Floats y(static_cast<std::size_t>(shape.out));
    const LeafForward visit = visit_of(leaf, row, 1, y.data());
    leaf_forward(context, std::span(&visit, 1));
    synchronize(context);
    for (Index o = 0; o < shape.out; ++o) {
      const float value = y[static_cast<std::size_t>(o)];
      alone.push_back(value);
      added.push_back(residual[static_cast<std::size_t>(row * shape.out + o)] + value);
    }
  }
  EXPECT_TRUE(same_bits(outputs[0], alone));
  EXPECT_TRUE(same_bits(outputs[1], added)) << "with a residual";
}

// What is not a number shows in the result.
TEST(LeafForward, KeepsNaN) {
  const Floats x(20, std::nanf("")), w1(60, 1), b1(3), w2(6, 1), b2(2);
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(2);
    const LeafForward leaf{.rows = 1,
                           .width = 20,
                           .leaf_width = 3,
                           .out = 2,
                           .x = x.data(),
                           .w1 = w1.data(),
                           .b1 = b1.data(),
                           .w2 = w2.data(),
                           .b2 = b2.data(),
                           .y = y.data()};
    leaf_forward(context, std::span(&leaf, 1));
    return {y.values()};
  });
  for (float value : outputs[0]) EXPECT_TRUE(std::isnan(value));
}

TEST_P(Leaves, ScalingBothWays) {
  const Index size = shape.rows * leaves * shape.leaf_width;
  const Floats mixture = random_floats(shape.rows * leaves, 8), hidden = random_floats(size, 9),
               d_scaled = random_floats(size, 10), before = random_floats(shape.rows * leaves, 11);
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output scaled(size), d_hidden(size), d_mixture(before);
    scale_leaves(context, {.rows = shape.rows,
                           .leaves = leaves,
                           .leaf_width = shape.leaf_width,
                           .mixture = mixture.data(),
                           .hidden = hidden.data(),
                           .scaled = scaled.data()});
    scale_leaves_backward(context, {.rows = shape.rows,
                                    .leaves = leaves,
                                    .leaf_width = shape.leaf_width,
                                    .mixture = mixture.data(),
                                    .hidden = hidden.data(),
                                    .d_scaled = d_scaled.data(),
                                    .d_hidden = d_hidden.data(),
                                    .d_mixture = d_mixture.data()});
    return {scaled.values(), d_hidden.values(), d_mixture.values()};
  });
  Doubles scaled, d_hidden;
  Sums d_mixture = begun_with(before);
  for (std::size_t i = 0; i < hidden.size(); ++i) {
    const std::size_t leaf = i / static_cast<std::size_t>(shape.leaf_width);
    scaled.push_back(double{mixture[leaf]} * hidden[i]);
    d_hidden.push_back(double{mixture[leaf]} * d_scaled[i]);
    d_mixture[leaf] += double{hidden[i]} * d_scaled[i];
  }
  expect_near(outputs[0], scaled, 1e-6, "scaled");
  expect_near(outputs[1], d_hidden, 1e-6, "d_hidden");
  expect_sums(outputs[2], d_mixture, "d_mixture");
}

INSTANTIATE_TEST_SUITE_P(Shapes, Leaves, testing::ValuesIn(kLeafCases), [](const auto& each) {
  return "of" + std::to_string(each.index) + "rows" + std::to_string(each.param.rows) + "leaf" +
         std::to_string(each.param.leaf_width);
});

}  // namespace
}  // namespace switchyard::kernels
