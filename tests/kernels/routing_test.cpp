#include "kernels/api/routing.hpp"

#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "kernel_test.hpp"
#include "kernels/api/gate.hpp"

namespace switchyard::kernels {
namespace {

struct Sorted {
  Ints tokens_per_expert, assignment_of_slot, slot_of_assignment, dropped_per_expert;
};
Sorted sort(const Ints& experts, Index num_experts, Index capacity = 0, Index top_k = 1) {
  const auto assignments = static_cast<Index>(experts.size());
  Sorted sorted;
  on_all_threads([&](const Context& context) -> std::vector<Floats> {
    IntOutput tokens_per_expert(num_experts), dropped(num_experts), of_slot(assignments), of_assignment(assignments);
    SortByExpert args{.assignments = assignments,
                      .num_experts = num_experts,
                      .capacity = capacity,
                      .top_k = top_k,
                      .experts = experts.data(),
                      .tokens_per_expert = tokens_per_expert.data(),
                      .dropped_per_expert = dropped.data(),
                      .assignment_of_slot = of_slot.data(),
                      .slot_of_assignment = of_assignment.data()};
    sort_by_expert(context, args);
    args.dropped_per_expert = nullptr;
    sort_by_expert(context, args);
    sorted = {tokens_per_expert.values(), of_slot.values(), of_assignment.values(), dropped.values()};
    return {tokens_per_expert.floats(), of_slot.floats(), of_assignment.floats(), dropped.floats()};
  });
  return sorted;
}

TEST(SortByExpertTest, IsStableAndLeavesEmptyExpertsEmpty) {
  const Sorted sorted = sort({2, 0, 2, 4, 0, 2}, 5);
  EXPECT_EQ(sorted.tokens_per_expert, (Ints{2, 0, 3, 0, 1}));
  EXPECT_EQ(sorted.dropped_per_expert, (Ints{0, 0, 0, 0, 0}));
  EXPECT_EQ(sorted.assignment_of_slot, (Ints{1, 4, 0, 2, 5, 3}));
  EXPECT_EQ(sorted.slot_of_assignment, (Ints{2, 0, 3, 5, 1, 4}));
  EXPECT_EQ(sort({}, 3).tokens_per_expert, (Ints{0, 0, 0}));
}

TEST(SortByExpertTest, KeepsTheFirstOfEachExpertUpToItsCapacity) {
  const Sorted sorted = sort({2, 0, 2, -1, 2, 0, 2, 4}, 5, 2);
  EXPECT_EQ(sorted.tokens_per_expert, (Ints{2, 0, 2, 0, 1}));
  EXPECT_EQ(sorted.dropped_per_expert, (Ints{0, 0, 2, 0, 0}));
  const Ints of_slot(sorted.assignment_of_slot.begin(), sorted.assignment_of_slot.begin() + 5);
  EXPECT_EQ(of_slot, (Ints{1, 5, 0, 2, 7}));
  EXPECT_EQ(sorted.slot_of_assignment, (Ints{2, 0, 3, -1, -1, 1, -1, 4}));
  EXPECT_EQ(sort({-1, -1}, 1, 1).tokens_per_expert, Ints{0});
}

// Three tokens with two choices each; expert 0 is the second choice of the first token and the first of the others.
TEST(SortByExpertTest, FirstChoicesHaveRoomBeforeSecondOnes) {
  const Ints experts = {1, 0, 0, 1, 0, 1};
  const Sorted by_token = sort(experts, 2, 2), by_choice = sort(experts, 2, 2, 2);
  EXPECT_EQ(by_token.slot_of_assignment, (Ints{2, 0, 1, 3, -1, -1}));
  EXPECT_EQ(by_choice.slot_of_assignment, (Ints{2, -1, 0, 3, 1, -1}));
  for (const Sorted& sorted : {by_token, by_choice}) {
    EXPECT_EQ(sorted.tokens_per_expert, (Ints{2, 2}));
    EXPECT_EQ(sorted.dropped_per_expert, (Ints{1, 1}));
  }
  EXPECT_EQ(sort(experts, 2, 0, 2).slot_of_assignment, sort(experts, 2).slot_of_assignment) << "without a capacity";
}

Sorted reference(const Ints& experts, Index num_experts, Index capacity, Index top_k) {
  Sorted sorted{{}, {}, Ints(experts.size(), -1), {}};
  for (std::int32_t e = 0; e < num_experts; ++e) {
    Ints own;
    for (std::size_t a = 0; a < experts.size(); ++a)
      if (experts[a] == e) own.push_back(static_cast<std::int32_t>(a));
    const std::size_t room = capacity == 0 ? own.size() : std::min(own.size(), static_cast<std::size_t>(capacity));
    sorted.tokens_per_expert.push_back(static_cast<std::int32_t>(room));
    sorted.dropped_per_expert.push_back(static_cast<std::int32_t>(own.size() - room));
    std::stable_sort(own.begin(), own.end(), [=](std::int32_t a, std::int32_t b) { return a % top_k < b % top_k; });
    own.resize(room);
    std::sort(own.begin(), own.end());
    for (const std::int32_t a : own) {
      sorted.slot_of_assignment[static_cast<std::size_t>(a)] =
          static_cast<std::int32_t>(sorted.assignment_of_slot.size());
      sorted.assignment_of_slot.push_back(a);
    }
  }
  return sorted;
}

struct SortCase {
  Index assignments, num_experts;
  std::vector<Index> top_ks, capacities;
};

// One tile and several, and more experts than a block has counters for.
TEST(SortByExpertTest, MatchesTheReference) {
  for (const auto& [assignments, num_experts, top_ks, capacities] :
       {SortCase{650, 17, {1, 2, 5}, {0, 1, 30, 40, 1000}}, SortCase{5000, 3, {1, 2}, {0, 1600}},
        SortCase{1100, 300, {1}, {0}}, SortCase{1500, 7000, {2}, {0, 1}}}) {
    Ints experts;
    const auto many = static_cast<std::uint32_t>(num_experts);
    for (std::uint32_t a = 0; a < assignments; ++a) {
      const auto drawn = to_below(random_words({.seed = 4}, 0, a)[0], many + 2);
      experts.push_back(drawn > many ? -1 : static_cast<std::int32_t>(drawn % many));
    }
    for (const Index top_k : top_ks)
      for (const Index capacity : capacities) {
        const Sorted sorted = sort(experts, num_experts, capacity, top_k);
        const Sorted expected = reference(experts, num_experts, capacity, top_k);
        SCOPED_TRACE(testing::Message() << num_experts << " experts, top " << top_k << ", capacity " << capacity);
        EXPECT_EQ(sorted.tokens_per_expert, expected.tokens_per_expert);
        EXPECT_EQ(sorted.dropped_per_expert, expected.dropped_per_expert);
        EXPECT_EQ(sorted.slot_of_assignment, expected.slot_of_assignment);
        EXPECT_TRUE(std::equal(expected.assignment_of_slot.begin(), expected.assignment_of_slot.end(),
                               sorted.assignment_of_slot.begin()));
      }
  }
}

TEST(SortByExpertTest, RefusesAnExpertThatDoesNotExist) {
  if (test_device() == Device::kCuda) {
    if (!is_emulated()) GTEST_SKIP() << "the launch fails, and with it all later ones of this process";
    EXPECT_DEATH(sort({0, 3}, 3), "no such expert");
    EXPECT_DEATH(sort({0, -2}, 3), "no such expert");
    return;
  }
  EXPECT_THROW(sort({0, 3}, 3), Error);
  EXPECT_THROW(sort({0, -2}, 3), Error);
}

TEST(RouteStatisticsTest, MatchesTheReference) {
  for (const auto& [tokens, num_experts, top_k] :
       {std::array<Index, 3>{0, 3, 2}, {1, 1, 1}, {17, 4, 2}, {700, 17, 3}, {65, 65, 1}})
    for (const bool gated : {false, true}) {
      Ints experts;
      for (Index a = 0; a < tokens * top_k; ++a)
        experts.push_back(static_cast<std::int32_t>(a * a % (num_experts + 1)) - 1);
      const Floats weights = random_floats(tokens * top_k, 1);
      Floats probabilities = random_floats(tokens * num_experts, 2);  // any numbers of [0, 1) have such a sum
      for (std::size_t i = 0; i < probabilities.size(); ++i)
        probabilities[i] = i % 7 == 2 ? 0.0f : i % 11 == 3 ? 1.0f : std::fabs(probabilities[i]);
      const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
        Output weight_sums(num_experts), entropy_sum(1);
        route_statistics(context, {.tokens = tokens,
                                   .num_experts = num_experts,
                                   .top_k = top_k,
                                   .experts = experts.data(),
                                   .weights = gated ? weights.data() : nullptr,
                                   .probabilities = gated ? probabilities.data() : nullptr,
                                   .weight_sums = weight_sums.data(),
                                   .entropy_sum = entropy_sum.data()});
        return {weight_sums.values(), entropy_sum.values()};
      });
      Sums weight_sums(static_cast<std::size_t>(num_experts));
      for (std::size_t a = 0; a < experts.size(); ++a)
        if (experts[a] >= 0) weight_sums[static_cast<std::size_t>(experts[a])] += gated ? weights[a] : 1.0f;
      Sum entropy;
      for (const float p : probabilities) entropy += p > 0 && gated ? -p * std::log(double{p}) : 0.0;
      expect_sums(outputs[0], weight_sums, "weight_sums");
      expect_sums(outputs[1], {entropy}, "entropy_sum", 4);
    }
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
  constexpr std::uint32_t kFirst = 0x7ffffff0;  // ids go on where numbers with a sign would end
  Ints ids(static_cast<std::size_t>(num_slots), -7), ids_alone = ids;
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output to(num_slots * cols);
    dispatch(context, {.num_slots = num_slots,
                       .cols = cols,
                       .top_k = top_k,
                       .rows = rows.data(),
                       .assignment_of_slot = sorted.assignment_of_slot.data(),
                       .first_id = kFirst,
                       .slots = to.data(),
                       .slot_ids = ids.data()});
    dispatch(context, {.num_slots = num_slots,
                       .top_k = top_k,
                       .assignment_of_slot = sorted.assignment_of_slot.data(),
                       .first_id = kFirst,
                       .slot_ids = ids_alone.data()});
    return {to.values()};
  });
  for (Index slot = 0; slot < num_slots; ++slot) {
    const Index token = sorted.assignment_of_slot[static_cast<std::size_t>(slot)] / top_k;
    const auto id = static_cast<std::int32_t>(kFirst + static_cast<std::uint32_t>(token));
    ASSERT_EQ(ids[static_cast<std::size_t>(slot)], id);
    ASSERT_EQ(ids_alone[static_cast<std::size_t>(slot)], id);
    for (Index c = 0; c < cols; ++c)
      ASSERT_EQ(outputs[0][static_cast<std::size_t>(slot * cols + c)],
                rows[static_cast<std::size_t>(token * cols + c)]);
  }
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
  Doubles d_slots(outputs[0].size(), double{kPoison});
  Sums d_weights(outputs[1].size());
  each([&](Index t, Index c, std::size_t assignment, std::size_t element, double weight) {
    const double g = scale(t, c) * d_y[static_cast<std::size_t>(t * cols + c)];
    d_slots[element] = weight * g;
    d_weights[assignment] += g * slots[element];
  });
  expect_near(outputs[0], d_slots, 1e-6, "d_slots");
  expect_sums(outputs[1], d_weights, "d_weights", 2);
  EXPECT_TRUE(same_bits(outputs[0], outputs[2])) << "without d_weights";
}

INSTANTIATE_TEST_SUITE_P(Shapes, ExchangeCases, testing::ValuesIn(kExchangeCases));

}  // namespace
}  // namespace switchyard::kernels
