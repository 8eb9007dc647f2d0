#include "kernels/api/routing.hpp"

#include <algorithm>
#include <numeric>

#include "core/error.hpp"
#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

using Ints = std::vector<std::int32_t>;

struct GateCase {
  Index tokens, num_experts;
};
class GateCases : public testing::TestWithParam<GateCase> {
 protected:
  const Index tokens = GetParam().tokens, num_experts = GetParam().num_experts;
  const Floats logits = random_floats(tokens * num_experts, 1, 3), bias = random_floats(num_experts, 2);

  Doubles softmax(const Doubles& z) const {
    Doubles p;
    for (Index t = 0; t < tokens; ++t) {
      double sum = 0;
      for (Index e = 0; e < num_experts; ++e)
        sum += std::exp(z[static_cast<std::size_t>(t * num_experts + e)] + bias[static_cast<std::size_t>(e)]);
      for (Index e = 0; e < num_experts; ++e)
        p.push_back(std::exp(z[static_cast<std::size_t>(t * num_experts + e)] + bias[static_cast<std::size_t>(e)]) /
                    sum);
    }
    return p;
  }
};

TEST_P(GateCases, ForwardAndBackwardMatchTheReference) {
  const Floats d_weights = random_floats(tokens, 3);
  Ints tokens_per_expert(static_cast<std::size_t>(num_experts));
  std::iota(tokens_per_expert.begin(), tokens_per_expert.end(), 2);
  constexpr float kBalanceScale = 0.3f;
  Ints experts(static_cast<std::size_t>(tokens), -1);
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output probabilities(tokens * num_experts), in_place(logits), weights(tokens), d_logits(tokens * num_experts);
    Top1Gate args{.tokens = tokens,
                  .num_experts = num_experts,
                  .logits = logits.data(),
                  .bias = bias.data(),
                  .probabilities = probabilities.data(),
                  .experts = experts.data(),
                  .weights = weights.data()};
    top1_gate(context, args);
    args.logits = args.probabilities = in_place.data();
    top1_gate(context, args);
    top1_gate_backward(context, {.tokens = tokens,
                                 .num_experts = num_experts,
                                 .probabilities = probabilities.data(),
                                 .experts = experts.data(),
                                 .d_weights = d_weights.data(),
                                 .tokens_per_expert = tokens_per_expert.data(),
                                 .balance_scale = kBalanceScale,
                                 .d_logits = d_logits.data()});
    return {probabilities.values(), in_place.values(), weights.values(), d_logits.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "in place";
  const Doubles p = softmax(widen(logits));
  expect_near(outputs[0], p, 1e-6, "probabilities");
  for (std::size_t t = 0; t < experts.size(); ++t) {
    const auto* row = outputs[0].data() + t * static_cast<std::size_t>(num_experts);
    ASSERT_EQ(experts[t], std::max_element(row, row + num_experts) - row) << "token " << t;
    ASSERT_EQ(outputs[2][t], row[experts[t]]);
  }
  const auto losses = [&](const Doubles& z) {  // chosen probabilities, then the balance loss
    const Doubles q = softmax(z);
    Doubles values;
    double balance = 0;
    for (std::size_t i = 0; i < q.size(); ++i) {
      const auto expert = i % static_cast<std::size_t>(num_experts), token = i / static_cast<std::size_t>(num_experts);
      balance += kBalanceScale * tokens_per_expert[expert] * q[i];
      if (static_cast<std::int32_t>(expert) == experts[token]) values.push_back(q[i]);
    }
    values.push_back(balance);
    return values;
  };
  Floats weights_of_losses = d_weights;
  weights_of_losses.push_back(1);
  expect_gradient(losses, widen(logits), weights_of_losses, outputs[3], 1e-5, "d_logits", tokens > 60 ? 7 : 1);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GateCases,
                         testing::Values(GateCase{0, 3}, GateCase{1, 1}, GateCase{2, 3}, GateCase{17, 4},
                                         GateCase{65, 17}, GateCase{65, 65}));

TEST(Top1GateTest, TakesTheFirstOfEqualMaximaAndAnExpertThatExistsForNan) {
  ThreadPool threads(1);
  const Context context{.threads = &threads};
  const Floats logits{1, 2, 2, 1, kPoison, 5}, bias{0, 0, 0};
  Ints experts(2, -1);
  Output probabilities(6), weights(2);
  top1_gate(context, {.tokens = 2,
                      .num_experts = 3,
                      .logits = logits.data(),
                      .bias = bias.data(),
                      .probabilities = probabilities.data(),
                      .experts = experts.data(),
                      .weights = weights.data()});
  EXPECT_EQ(experts[0], 1);
  EXPECT_TRUE(experts[1] >= 0 && experts[1] < 3);
  EXPECT_TRUE(std::isnan(weights.values()[1]));
}

struct Sorted {
  Ints tokens_per_expert, assignment_of_slot, slot_of_assignment;
};
Sorted sort(const Ints& experts, Index num_experts) {
  ThreadPool threads(2);
  Sorted sorted{Ints(static_cast<std::size_t>(num_experts), -1), Ints(experts.size(), -1), Ints(experts.size(), -1)};
  sort_by_expert({.threads = &threads}, {.assignments = static_cast<Index>(experts.size()),
                                         .num_experts = num_experts,
                                         .experts = experts.data(),
                                         .tokens_per_expert = sorted.tokens_per_expert.data(),
                                         .assignment_of_slot = sorted.assignment_of_slot.data(),
                                         .slot_of_assignment = sorted.slot_of_assignment.data()});
  return sorted;
}

TEST(SortByExpertTest, IsStableAndLeavesEmptyExpertsEmpty) {
  const Sorted sorted = sort({2, 0, 2, 4, 0, 2}, 5);
  EXPECT_EQ(sorted.tokens_per_expert, (Ints{2, 0, 3, 0, 1}));
  EXPECT_EQ(sorted.assignment_of_slot, (Ints{1, 4, 0, 2, 5, 3}));
  EXPECT_EQ(sorted.slot_of_assignment, (Ints{2, 0, 3, 5, 1, 4}));
  EXPECT_EQ(sort({}, 3).tokens_per_expert, (Ints{0, 0, 0}));
}

TEST(SortByExpertTest, RefusesAnExpertThatDoesNotExist) {
  EXPECT_THROW(sort({0, 3}, 3), Error);
  EXPECT_THROW(sort({0, -1}, 3), Error);
}

struct ExchangeCase {
  Index tokens, cols, top_k;
  bool weighted;
  float probability;
};
constexpr ExchangeCase kExchangeCases[] = {{0, 3, 1, true, 0},      {1, 1, 1, true, 0.5f},    {17, 25, 1, false, 0.1f},
                                           {65, 17, 2, true, 0.1f}, {3, 1030, 3, true, 0.1f}, {40, 64, 2, false, 0}};

class ExchangeCases : public testing::TestWithParam<ExchangeCase> {
 protected:
  const ExchangeCase shape = GetParam();
  const Index tokens = shape.tokens, cols = shape.cols, top_k = shape.top_k, num_slots = tokens * top_k;
  const Ints experts = [this] {
    Ints values;
    for (Index a = 0; a < num_slots; ++a) values.push_back(static_cast<std::int32_t>(a * a % 5));
    return values;
  }();
  const Sorted sorted = sort(experts, 5);
  const Ints with_drops = [this] {  // every seventh assignment is dropped
    Ints kept = sorted.slot_of_assignment;
    for (std::size_t a = 3; a < kept.size(); a += 7) kept[a] = -1;
    return kept;
  }();
  const Floats rows = random_floats(tokens * cols, 1), slots = random_floats(num_slots * cols, 2);
  const Floats weights = random_floats(num_slots, 3), d_y = random_floats(tokens * cols, 4);
  const Dropout dropout = some_dropout(shape.probability);

  double scale(Index t, Index c) const { return shape.probability == 0 ? 1.0 : reference_scale(dropout, t, c); }
  // Calls visit(token, column, weight's index, slot's element, weight) for every assignment that is not dropped.
  void each(const std::function<void(Index, Index, std::size_t, std::size_t, double)>& visit) const {
    for (Index a = 0; a < num_slots; ++a)
      for (Index c = 0; c < cols; ++c) {
        const auto assignment = static_cast<std::size_t>(a);
        if (with_drops[assignment] < 0) continue;
        visit(a / top_k, c, assignment, static_cast<std::size_t>(with_drops[assignment] * cols + c),
              shape.weighted ? double{weights[assignment]} : 1.0);
      }
  }
};

TEST_P(ExchangeCases, DispatchCopiesRowsAndTheirIds) {
  Ints ids(static_cast<std::size_t>(num_slots), -7);
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output to(num_slots * cols);
    dispatch(context, {.num_slots = num_slots,
                       .cols = cols,
                       .top_k = top_k,
                       .rows = rows.data(),
                       .assignment_of_slot = sorted.assignment_of_slot.data(),
                       .first_id = 1000,
                       .slots = to.data(),
                       .slot_ids = ids.data()});
    return {to.values()};
  });
  for (Index slot = 0; slot < num_slots; ++slot) {
    const Index token = sorted.assignment_of_slot[static_cast<std::size_t>(slot)] / top_k;
    ASSERT_EQ(ids[static_cast<std::size_t>(slot)], 1000 + token);
    for (Index c = 0; c < cols; ++c)
      ASSERT_EQ(outputs[0][static_cast<std::size_t>(slot * cols + c)],
                rows[static_cast<std::size_t>(token * cols + c)]);
  }
}

TEST_P(ExchangeCases, DispatchBackwardSumsOverChoices) {
  const Floats d_rows = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output out(tokens * cols);
    dispatch_backward(context, {.tokens = tokens,
                                .cols = cols,
                                .top_k = top_k,
                                .d_slots = slots.data(),
                                .slot_of_assignment = with_drops.data(),
                                .d_rows = out.data()});
    return {out.values()};
  })[0];
  Doubles expected(d_rows.size(), 0.0);
  each([&](Index t, Index c, std::size_t, std::size_t element, double) {
    expected[static_cast<std::size_t>(t * cols + c)] += slots[element];
  });
  expect_near(d_rows, expected, 1e-6, "d_rows");
}

TEST_P(ExchangeCases, CombineWeighsDropsAndAddsTheResidual) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output y(tokens * cols), in_place(rows);
    Combine args{.tokens = tokens,
                 .cols = cols,
                 .top_k = top_k,
                 .slots = slots.data(),
                 .slot_of_assignment = with_drops.data(),
                 .weights = shape.weighted ? weights.data() : nullptr,
                 .residual = rows.data(),
                 .y = y.data(),
                 .dropout = dropout};
    combine(context, args);
    args.residual = args.y = in_place.data();
    combine(context, args);
    return {y.values(), in_place.values()};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "y over residual";
  Doubles expected = widen(rows);
  each([&](Index t, Index c, std::size_t, std::size_t element, double weight) {
    expected[static_cast<std::size_t>(t * cols + c)] += scale(t, c) * weight * slots[element];
  });
  expect_near(outputs[0], expected, 1e-6, "y");
}

TEST_P(ExchangeCases, CombineBackwardMatchesTheReferenceAndLeavesUnusedSlotsAlone) {
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output d_slots(num_slots * cols), d_weights(num_slots), without_weights(num_slots * cols);
    CombineBackward args{.tokens = tokens,
                         .cols = cols,
                         .top_k = top_k,
                         .d_y = d_y.data(),
                         .slots = slots.data(),
                         .slot_of_assignment = with_drops.data(),
                         .weights = shape.weighted ? weights.data() : nullptr,
                         .d_slots = d_slots.data(),
                         .d_weights = d_weights.data(),
                         .dropout = dropout};
    combine_backward(context, args);
    args.slots = nullptr;
    args.d_weights = nullptr;
    args.d_slots = without_weights.data();
    combine_backward(context, args);
    return {d_slots.values(), d_weights.values(), without_weights.values()};
  });
  Doubles d_slots(outputs[0].size(), double{kPoison}), d_weights(outputs[1].size(), 0.0);
  each([&](Index t, Index c, std::size_t assignment, std::size_t element, double weight) {
    const double g = scale(t, c) * d_y[static_cast<std::size_t>(t * cols + c)];
    d_slots[element] = weight * g;
    d_weights[assignment] += g * slots[element];
  });
  expect_near(outputs[0], d_slots, 1e-6, "d_slots");
  expect_near(outputs[1], d_weights, 1e-5, "d_weights");
  EXPECT_TRUE(same_bits(outputs[0], outputs[2])) << "without d_weights";
}

INSTANTIATE_TEST_SUITE_P(Shapes, ExchangeCases, testing::ValuesIn(kExchangeCases));

}  // namespace
}  // namespace switchyard::kernels
