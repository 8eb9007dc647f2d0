// The benchmark's MPI_Alltoallv carries what all_to_all_v carries, in the world and in parts of it.
#include "comm/bare_all_to_all.hpp"

#include <gtest/gtest.h>

#include "comm/collectives.hpp"
#include "support/ranks.hpp"

namespace switchyard::testing {
namespace {

// Rank r of the group sends 3 + r + 2 p rows of 5 numbers to rank p, and to rank 0 none.
Index rows_between(int from, int to) { return to == 0 && from != 0 ? 0 : 3 + from + 2 * to; }

void expect_same_as_all_to_all_v(Communicator& group) {
  constexpr Index kRowBytes = 5 * 4;
  std::vector<Index> send_rows, receive_rows;
  Index num_sent = 0, num_received = 0;
  for (int peer = 0; peer < group.size(); ++peer) {
    send_rows.push_back(rows_between(group.rank(), peer));
    receive_rows.push_back(rows_between(peer, group.rank()));
    num_sent += send_rows.back() * 5;
    num_received += receive_rows.back() * 5;
  }
  std::vector<std::int32_t> sent;
  for (Index i = 0; i < num_sent; ++i) sent.push_back(static_cast<std::int32_t>(1000 * world_rank() + i));
  std::vector<std::int32_t> expected(static_cast<std::size_t>(num_received), -1), received = expected;
  all_to_all_v({}, group, "test", sent.data(), send_rows, expected.data(), receive_rows, kRowBytes);
  const BareAllToAll bare(group);
  bare.run(sent.data(), received.data(), BareAllToAll::messages(send_rows, receive_rows, kRowBytes));
  EXPECT_EQ(received, expected);
}

TEST(BareAllToAll, CarriesWhatAllToAllVCarries) {
  const auto world = world_communicator();
  expect_same_as_all_to_all_v(*world);
  expect_same_as_all_to_all_v(*world->split(world->rank() / 2));
  expect_same_as_all_to_all_v(*world->split(world->rank() % 2));
}

TEST(BareAllToAll, SaysWhatMpiCannotCount) {
  const std::vector<Index> most = {(Index{1} << 31) - 1}, more = {Index{1} << 31};
  EXPECT_EQ(message_of([&] { BareAllToAll::messages(most, most, 1); }), "");
  EXPECT_TRUE(contains(message_of([&] { BareAllToAll::messages(more, most, 1); }), "2 GiB"));
}

}  // namespace
}  // namespace switchyard::testing
