// Collectives against what they are defined to give, on every number of ranks that this runs on.
#include "comm/collectives.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>
#include <thread>

#include "comm/reference_tree.hpp"
#include "core/clock.hpp"
#include "support/ranks.hpp"

namespace switchyard::testing {
namespace {

// How many rows `from` sends to `to`.
using Counts = Index (*)(int from, int to);

std::vector<std::int32_t> row_of(int from, int to, Index row, Index row_size) {
  std::vector<std::int32_t> values;
  for (Index i = 0; i < row_size; ++i)
    values.push_back(static_cast<std::int32_t>(((from * 16 + to) * 4096 + row) * 16 + i));
  return values;
}

void check_all_to_all(Communicator& comm, Counts count, Index row_size) {
  std::vector<std::int32_t> send, expected;
  std::vector<Index> send_rows, receive_rows;
  for (int peer = 0; peer < comm.size(); ++peer) {
    send_rows.push_back(count(comm.rank(), peer));
    receive_rows.push_back(count(peer, comm.rank()));
    for (Index row = 0; row < send_rows.back(); ++row)
      for (std::int32_t value : row_of(comm.rank(), peer, row, row_size)) send.push_back(value);
    for (Index row = 0; row < receive_rows.back(); ++row)
      for (std::int32_t value : row_of(peer, comm.rank(), row, row_size)) expected.push_back(value);
  }
  std::vector<std::int32_t> received(expected.size() + 1, -1);
  all_to_all_v({}, comm, "test", send.data(), send_rows, received.data(), receive_rows, row_size * 4);
  EXPECT_EQ(received.back(), -1) << "written past the end";
  received.pop_back();
  EXPECT_EQ(received, expected);
}

TEST(AllToAll, SendsUnequalAndEmptyParts) {
  const auto comm = world_communicator();
  for (Index row_size : {1, 3}) {
    check_all_to_all(
        *comm, [](int from, int to) { return Index{(from * 7 + to * 3) % 5}; }, row_size);
    check_all_to_all(
        *comm, [](int, int) { return Index{0}; }, row_size);
    check_all_to_all(
        *comm, [](int, int to) { return to == 0 ? Index{40} : Index{0}; }, row_size);  // all to one
    check_all_to_all(
        *comm, [](int from, int) { return from == 0 ? Index{0} : Index{9}; }, row_size);  // one has nothing
    // Too large for MPI's eager messages: both sides must be there at once.
    check_all_to_all(
        *comm, [](int from, int to) { return Index{2000 + 100 * from + to}; }, row_size * 16);
  }
}

Floats leaf_of(Index rank, Index size) { return order_sensitive_floats(size, 1000 + static_cast<std::uint64_t>(rank)); }

TEST(TreeReduce, GivesTheBitsOfTheBalancedTreeOnEveryRank) {
  const auto comm = world_communicator();
  const Cpu cpu;
  for (Index size : {0, 1, 2, 3, 7, 1000, 40000}) {
    std::vector<Floats> leaves;
    for (Index rank = 0; rank < comm->size(); ++rank) leaves.push_back(leaf_of(rank, size));
    Floats data = leaf_of(comm->rank(), size);
    data.push_back(12345);  // a guard
    Floats scratch(static_cast<std::size_t>((size + 1) / 2) + 1, 54321);
    tree_reduce(cpu, *comm, "test", data.data(), size, scratch.data());
    EXPECT_EQ(scratch.back(), 54321) << "scratch of (size + 1) / 2 was not enough";
    EXPECT_EQ(data.back(), 12345);
    data.pop_back();
    EXPECT_EQ(bits_of(data), bits_of(reference_tree(leaves))) << size << " elements";
    // The order matters for these values, or the comparison above would say nothing.
    if (size == 1000 && comm->size() == 4) {
      EXPECT_NE(bits_of(data), bits_of(left_to_right(leaves, 0, leaves.size())));
    }
  }
}

TEST(TreeReduce, ComparesWithTheLibrarysSum) {
  const auto comm = world_communicator();
  const Cpu cpu;
  Floats tree = leaf_of(comm->rank(), 500), library = tree, scratch(250);
  tree_reduce(cpu, *comm, "test", tree.data(), 500, scratch.data());
  comm->all_reduce(cpu, library.data(), 500);
  for (std::size_t i = 0; i < tree.size(); ++i) EXPECT_NEAR(tree[i], library[i], 1e-2) << i;
}

TEST(AllGather, HoldsEveryRanksBytesInOrder) {
  const auto comm = world_communicator();
  const std::int32_t mine[] = {comm->rank(), 10 * comm->rank(), -1};
  std::vector<std::int32_t> all(static_cast<std::size_t>(3 * comm->size())), expected;
  all_gather(*comm, "test", mine, sizeof(mine), all.data());
  for (int rank = 0; rank < comm->size(); ++rank) expected.insert(expected.end(), {rank, 10 * rank, -1});
  EXPECT_EQ(all, expected);
  all_gather(*comm, "nothing", nullptr, 0, nullptr);
}

TEST(Broadcast, FromAnyRank) {
  const auto comm = world_communicator();
  for (int root = 0; root < comm->size(); ++root) {
    for (std::size_t size : {0, 1, 100000}) {
      std::vector<std::int32_t> data(size, comm->rank() == root ? 7 + root : -1);
      broadcast(*comm, "test", data.data(), static_cast<Index>(4 * size), root);
      EXPECT_EQ(data, std::vector<std::int32_t>(size, 7 + root));
    }
  }
}

TEST(Barrier, NoRankLeavesBeforeTheLastOneComes) {
  const auto comm = world_communicator();
  for (int late = 0; late < comm->size(); ++late) {
    if (comm->rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double arrival = seconds_now();  // one clock for all: these ranks share a machine
    barrier(*comm, "test");
    const double departure = seconds_now();
    std::vector<double> arrivals(static_cast<std::size_t>(comm->size()));
    all_gather(*comm, "arrivals", &arrival, sizeof(arrival), arrivals.data());
    EXPECT_GE(departure, *std::max_element(arrivals.begin(), arrivals.end()));
  }
}

TEST(Any, IsTrueOnEveryRankWhereItIsOnOne) {
  const auto comm = world_communicator();
  for (int rank = 0; rank < comm->size(); ++rank) EXPECT_TRUE(any(*comm, "test", comm->rank() == rank)) << rank;
  EXPECT_TRUE(any(*comm, "test", true));
  EXPECT_FALSE(any(*comm, "test", false));
}

TEST(Texts, GatherToRank0AndBroadcastFromIt) {
  const auto comm = world_communicator();
  const auto text_of = [](int rank) {
    return std::string(static_cast<std::size_t>(3 * rank), static_cast<char>('a' + rank));
  };
  const std::vector<std::string> texts = gather_texts(*comm, "test", text_of(comm->rank()));
  if (comm->rank() == 0) {
    ASSERT_EQ(static_cast<int>(texts.size()), comm->size());
    for (int rank = 0; rank < comm->size(); ++rank) EXPECT_EQ(texts[static_cast<std::size_t>(rank)], text_of(rank));
  } else {
    EXPECT_TRUE(texts.empty());
  }
  EXPECT_EQ(broadcast_text(*comm, "test", comm->rank() == 0 ? "from rank 0\n" : "from another"), "from rank 0\n");
  EXPECT_EQ(broadcast_text(*comm, "test", ""), "");
}

TEST(Split, GroupsHaveRanksInOrderAndKnowTheirWorldRanks) {
  const auto comm = world_communicator();
  const auto parity = comm->split(comm->rank() % 2);
  std::vector<int> expected;
  for (int rank = comm->rank() % 2; rank < comm->size(); rank += 2) expected.push_back(rank);
  EXPECT_EQ(parity->world_ranks(), expected);
  EXPECT_EQ(parity->rank(), comm->rank() / 2);
  // Of a group of a group, still the world's.
  const auto alone = parity->split(parity->rank());
  EXPECT_EQ(alone->world_ranks(), std::vector<int>{comm->rank()});
}

TEST(Mesh, ExpertGroupsAreNeighboursAndReplicasHoldTheSameExperts) {
  for (int experts = 1; experts <= world_size(); experts *= 2) {
    const Mesh mesh(world_communicator(), experts);
    EXPECT_EQ(mesh.expert_group().size(), experts);
    EXPECT_EQ(mesh.expert_group().rank(), world_rank() % experts);
    EXPECT_EQ(mesh.expert_group().world_ranks().front(), world_rank() / experts * experts);
    EXPECT_EQ(mesh.replicas().size(), world_size() / experts);
    EXPECT_EQ(mesh.replicas().rank(), world_rank() / experts);
    for (int rank : mesh.replicas().world_ranks()) EXPECT_EQ(rank % experts, world_rank() % experts);
  }
}

// The last rank does not come; every other one must say so, in time, and name no rank that did come.
TEST(TimeOut, NamesTheRankThatDidNotCome) {
  if (world_size() == 1) GTEST_SKIP() << "one rank waits for nobody";
  const auto comm = world_communicator(1);
  const int missing = comm->size() - 1;
  if (comm->rank() != missing) {
    const double start = seconds_now();
    std::vector<int> all(static_cast<std::size_t>(comm->size()));
    const int rank = comm->rank();
    const std::string message = message_of([&] { all_gather(*comm, "a test", &rank, sizeof(rank), all.data()); });
    EXPECT_LT(seconds_now() - start, 10);
    EXPECT_TRUE(contains(message, "a test: rank " + std::to_string(rank) +
                                      " waited 1 s, and there is no answer from rank " + std::to_string(missing) + "."))
        << message;
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(TimeOut, NamesWorldRanksInsideAGroup) {
  if (world_size() < 4) GTEST_SKIP() << "needs two groups of two ranks";
  const auto group = world_communicator(1)->split(world_rank() % 2);
  if (world_rank() == 1) {
    const std::string message = message_of([&] { barrier(*group, "a test"); });
    EXPECT_TRUE(contains(message, "rank 1 waited 1 s, and there is no answer from rank 3.")) << message;
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

// Ranks that wait for one another wait, in the end, for the last: it alone is named, by all others and in time.
void expect_the_last_rank_is_named(const std::function<void(Communicator&)>& collective) {
  const auto comm = world_communicator(1);
  const int missing = comm->size() - 1;
  if (comm->rank() != missing) {
    const double start = seconds_now();
    const std::string message = message_of([&] { collective(*comm); });
    EXPECT_LT(seconds_now() - start, 20);
    EXPECT_TRUE(contains(message, " no answer from rank " + std::to_string(missing) + ".")) << message;
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(TimeOut, NamesNoRankThatItselfWaits) {
  if (world_size() == 1) GTEST_SKIP() << "one rank waits for nobody";
  const Cpu cpu;
  Floats data(1000, 1.0f), scratch(500);
  expect_the_last_rank_is_named(
      [&](Communicator& comm) { tree_reduce(cpu, comm, "a test", data.data(), 1000, scratch.data()); });
  expect_the_last_rank_is_named([&](Communicator& comm) { comm.all_reduce(cpu, data.data(), 1000); });
  expect_the_last_rank_is_named([&](Communicator& comm) { comm.split(0); });
}

TEST(TimeOut, FollowsRanksThatWaitInAnotherGroup) {
  if (world_size() < 4) GTEST_SKIP() << "needs two groups of two ranks";
  const auto comm = world_communicator(1);
  const auto neighbours = comm->split(world_rank() / 2), others = comm->split(world_rank() % 2);
  // 0 waits for 1, which waits for 3.
  if (world_rank() < 2) {
    const std::string message = message_of([&] { barrier(world_rank() == 0 ? *neighbours : *others, "a test"); });
    EXPECT_TRUE(contains(message, " no answer from rank 3.")) << message;
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(TimeOut, CanBeSetLaterAndHoldsForGroups) {
  if (world_size() == 1) GTEST_SKIP() << "one rank waits for nobody";
  const auto comm = world_communicator(600);
  comm->set_timeout(1);
  const auto group = comm->split(0);
  if (world_rank() == 0) {
    EXPECT_TRUE(contains(message_of([&] { barrier(*group, "a test"); }), "waited 1 s"));
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

// They may do so while they are called.
TEST(TimeOut, IsNotForRanksThatComeWhileTheyAreCalled) {
  if (world_size() != 2) GTEST_SKIP() << "needs two ranks";
  const auto comm = world_communicator(1);
  if (world_rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(message_of([&] { barrier(*comm, "a test"); }), "");
}

// Rank 0 waits for 1, which begins to wait for 3 later: 3 has as long as any rank that is waited for.
TEST(TimeOut, IsThatOfTheRankThatBeganToWaitLast) {
  if (world_size() < 4) GTEST_SKIP() << "needs two groups of two ranks";
  const auto comm = world_communicator(2);
  const auto neighbours = comm->split(world_rank() / 2), others = comm->split(world_rank() % 2);
  const auto sleep_for = [](int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); };
  const std::string message = message_of([&] {
    if (world_rank() == 1) sleep_for(2500);
    if (world_rank() == 3) sleep_for(4300);
    if (world_rank() % 2 == 1) barrier(*others, "a test");
    if (world_rank() < 2) barrier(*neighbours, "a test");
  });
  EXPECT_EQ(message, "");
  MPI_Barrier(MPI_COMM_WORLD);
}

// Nothing is wrong with any rank: they wait for one another.
TEST(TimeOut, SaysSoWhereAllRanksAnswer) {
  if (world_size() == 1) GTEST_SKIP() << "one rank waits for nobody";
  const auto comm = world_communicator(1);
  char byte = 0;
  const Transfer receive{comm->rank() ^ 1, nullptr, 0, &byte, 1};
  const auto group = comm->split(0);
  // Each pair waits in two communicators, so that no message can come.
  Communicator& mine = comm->rank() % 2 == 0 ? *comm : *group;
  const std::string message = message_of([&] { mine.exchange("a test", std::span(&receive, 1)); });
  EXPECT_TRUE(contains(message, "All ranks answer, but wait for one another")) << message;
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(Refusals, ATransferToItselfOfTwoSizes) {
  const auto comm = world_communicator();
  char bytes[4] = {};
  const Transfer unequal{comm->rank(), bytes, 2, bytes + 2, 1};
  const std::string message = message_of([&] { comm->exchange("a test", std::span(&unequal, 1)); });
  EXPECT_TRUE(contains(message, "sends itself 2 bytes but expects 1")) << message;
}

TEST(LocalCommunicator, IsAWorldOfOne) {
  const auto comm = make_local_communicator();
  EXPECT_EQ(comm->size(), 1);
  EXPECT_EQ(comm->rank(), 0);
  EXPECT_EQ(comm->world_ranks(), std::vector<int>{0});
  EXPECT_EQ(comm->split(3)->size(), 1);
  check_all_to_all(
      *comm, [](int, int) { return Index{5}; }, 3);
  EXPECT_EQ(broadcast_text(*comm, "test", "text"), "text");
  EXPECT_EQ(gather_texts(*comm, "test", "text"), std::vector<std::string>{"text"});
  barrier(*comm, "test");
  const Cpu cpu;
  float value = 3;
  tree_reduce(cpu, *comm, "test", &value, 1, nullptr);
  comm->all_reduce(cpu, &value, 1);
  EXPECT_EQ(value, 3);
}

TEST(LocalCommunicator, RefusesOtherRanksAndUnequalSizes) {
  const auto comm = make_local_communicator();
  char bytes[4] = {};
  const Transfer other{1, bytes, 1, bytes + 1, 1}, unequal{0, bytes, 2, bytes + 2, 1};
  EXPECT_EQ(message_of([&] { comm->exchange("a test", std::span(&other, 1)); }),
            "a test: rank 1 does not exist in a world of one rank");
  EXPECT_EQ(message_of([&] { comm->exchange("a test", std::span(&unequal, 1)); }),
            "a test: rank 0 sends itself 2 bytes but expects 1");
}

}  // namespace
}  // namespace switchyard::testing
