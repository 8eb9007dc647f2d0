// The exchange against a naive reference that knows what every rank sends: rows arrive by source rank, then by expert,
// and come back to where they were.
#include "routing/exchange.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "support/ranks.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kExperts = 8;

// How many tokens a source rank of the expert group sends to an expert.
struct Load {
  std::string name;
  std::function<std::int32_t(Index source, Index expert)> tokens;
  bool same_counts_everywhere = false;
};

const Load kLoads[] = {
    {"even", [](Index, Index) { return 3; }},
    {"known to be even", [](Index, Index) { return 3; }, true},
    {"unbalanced", [](Index source, Index expert) { return static_cast<std::int32_t>((source * 5 + expert * 3) % 7); }},
    {"empty experts", [](Index, Index expert) { return expert % 3 == 0 ? 4 : 0; }},
    {"one expert takes all", [](Index, Index expert) { return expert == 5 ? 50 : 0; }},
    {"known that one takes all", [](Index, Index expert) { return expert == 5 ? 50 : 0; }, true},
    {"rank 0 has no tokens", [](Index source, Index) { return source == 0 ? 0 : 6; }},
    {"only rank 0 has tokens", [](Index source, Index) { return source == 0 ? 6 : 0; }},
    {"nobody has tokens", [](Index, Index) { return 0; }},
    {"many", [](Index source, Index expert) { return static_cast<std::int32_t>(500 + 20 * source + expert); }},
};

// What a row says: where it came from. (row_size) values.
void append_row(std::vector<float>& rows, Index source, Index expert, Index row, Index row_size) {
  for (Index i = 0; i < row_size; ++i)
    rows.push_back(static_cast<float>(source * 1000 + expert * 100) + static_cast<float>(row) / 8 +
                   static_cast<float>(i) / 1024);
}

RoutePlan plan_of(const Load& load, Index source) {
  RoutePlan plan;
  plan.num_experts = kExperts;
  plan.same_counts_everywhere = load.same_counts_everywhere;
  for (Index expert = 0; expert < kExperts; ++expert) {
    plan.tokens_per_expert.push_back(load.tokens(source, expert));
    plan.tokens += plan.tokens_per_expert.back();
  }
  return plan;
}

void check(const Load& load, Communicator& group, Index row_size) {
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  PhaseSeconds seconds;
  const RoutePlan plan = plan_of(load, group.rank());
  Exchange exchange(cpu, group, plan, seconds);
  EXPECT_EQ(exchange.num_slots(), plan.tokens);

  std::vector<float> sent, expected;
  for (Index expert = 0; expert < kExperts; ++expert)
    for (Index row = 0; row < load.tokens(group.rank(), expert); ++row)
      append_row(sent, group.rank(), expert, row, row_size);
  const Index local = kExperts / group.size(), first_expert = local * group.rank();
  std::size_t segment_idx = 0;
  ASSERT_EQ(static_cast<Index>(exchange.segments().size()), group.size() * local);
  for (Index source = 0; source < group.size(); ++source) {
    for (Index expert = 0; expert < local; ++expert) {
      const Segment& segment = exchange.segments()[segment_idx++];
      EXPECT_EQ(segment.source, source);
      EXPECT_EQ(segment.local_expert, expert);
      EXPECT_EQ(segment.rows, load.tokens(source, first_expert + expert));
      EXPECT_EQ(segment.first_row * row_size, static_cast<Index>(expected.size()));
      for (Index row = 0; row < segment.rows; ++row) append_row(expected, source, first_expert + expert, row, row_size);
    }
  }
  EXPECT_EQ(exchange.num_received() * row_size, static_cast<Index>(expected.size()));

  std::vector<float> slots = sent;
  float* received = exchange.to_experts(arena, slots.data(), row_size);
  EXPECT_EQ(std::vector<float>(received, received + expected.size()), expected);
  if (group.size() > 1) {
    EXPECT_EQ(slots, sent) << "the sender's rows stay as they are";
  }

  // Each expert leaves its mark, so that rows from elsewhere could not pass for a token's own.
  for (const Segment& segment : exchange.segments())
    for (Index i = 0; i < segment.rows * row_size; ++i)
      received[segment.first_row * row_size + i] += static_cast<float>(10000 * (first_expert + segment.local_expert));
  const float* returned = exchange.to_tokens(arena, received, row_size);
  std::vector<float> marked = sent;
  std::size_t slot = 0;
  for (Index expert = 0; expert < kExperts; ++expert)
    for (Index i = 0; i < load.tokens(group.rank(), expert) * row_size; ++i)
      marked[slot++] += static_cast<float>(10000 * expert);
  EXPECT_EQ(std::vector<float>(returned, returned + marked.size()), marked);
}

TEST(Exchange, CarriesRowsToExpertsAndBack) {
  for (Index experts = 1; experts <= world_size(); experts *= 2) {
    const Mesh mesh(world_communicator(), experts);
    for (const Load& load : kLoads) {
      for (Index row_size : {1, 3, 64}) {
        SCOPED_TRACE(load.name + ", P " + std::to_string(experts) + ", rows of " + std::to_string(row_size));
        check(load, mesh.expert_group(), row_size);
      }
    }
  }
}

TEST(Exchange, CarriesTokenIdentitiesToo) {
  const auto group = world_communicator();
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  PhaseSeconds seconds;
  const Load& load = kLoads[2];
  Exchange exchange(cpu, *group, plan_of(load, group->rank()), seconds);
  std::vector<std::int32_t> ids;
  for (Index slot = 0; slot < exchange.num_slots(); ++slot)
    ids.push_back(static_cast<std::int32_t>(group->rank() * 100000 + slot));
  const std::vector<std::int32_t> sent = ids;
  std::int32_t* received = exchange.ids_to_experts(arena, ids.data());
  for (const Segment& segment : exchange.segments()) {
    // A source's slots of one expert begin after those of all experts before it.
    const Index expert = kExperts / group->size() * group->rank() + segment.local_expert;
    Index first_slot = 0;
    for (Index before = 0; before < expert; ++before) first_slot += load.tokens(segment.source, before);
    for (Index row = 0; row < segment.rows; ++row)
      EXPECT_EQ(received[segment.first_row + row], segment.source * 100000 + first_slot + row);
  }
  const std::int32_t* returned = exchange.to_tokens(arena, received, 1);
  EXPECT_EQ(std::vector<std::int32_t>(returned, returned + sent.size()), sent);
}

TEST(Exchange, AGroupOfOneMovesNothing) {
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  PhaseSeconds seconds;
  const auto group = make_local_communicator();
  Exchange exchange(cpu, *group, plan_of(kLoads[2], 0), seconds);
  float row = 1;
  EXPECT_EQ(exchange.to_experts(arena, &row, 1), &row);
  EXPECT_EQ(exchange.to_tokens(arena, &row, 1), &row);
}

TEST(Exchange, CountsItsSeconds) {
  const auto group = world_communicator();
  const Cpu cpu;
  kernels::Arena arena(Device::kCpu);
  PhaseSeconds seconds;
  Exchange exchange(cpu, *group, plan_of(kLoads[0], group->rank()), seconds);
  EXPECT_GT(seconds.wait, 0);
  std::vector<float> slots(static_cast<std::size_t>(exchange.num_slots()));
  exchange.to_experts(arena, slots.data(), 1);
  EXPECT_EQ(seconds.exchange > 0, group->size() > 1);
}

}  // namespace
}  // namespace switchyard::testing
