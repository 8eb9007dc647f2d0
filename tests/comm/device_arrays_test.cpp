// Arrays in a device's memory, moved between ranks whose MPI knows host memory alone. The device is the emulated GPU,
// whose memory ends a program that touches it from the host.
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "comm/collectives.hpp"
#include "comm/mpi.hpp"
#include "core/error.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {
namespace {

const Context kGpu{.device = Device::kCuda};

std::unique_ptr<Communicator> world_communicator() { return make_mpi_communicator(MPI_COMM_WORLD, 60); }

kernels::Array<float> on_device(const std::vector<float>& values) {
  kernels::Array<float> array(Device::kCuda, std::ssize(values));
  array.upload(kGpu, values);
  return array;
}

std::vector<float> on_host(const kernels::Array<float>& array) {
  std::vector<float> values(static_cast<std::size_t>(array.size()));
  kernels::copy_to_host(kGpu, values.data(), array.data(), array.size() * Index{sizeof(float)});
  return values;
}

TEST(DeviceArrays, GoToEveryRank) {
  const auto comm = world_communicator();
  const Index ranks = comm->size();
  std::vector<float> sent, expected;
  std::vector<Index> send_rows, receive_rows;
  for (int peer = 0; peer < ranks; ++peer) {
    send_rows.push_back(peer % 2 + comm->rank());
    receive_rows.push_back(comm->rank() % 2 + peer);
    for (Index row = 0; row < send_rows.back(); ++row) sent.push_back(static_cast<float>(comm->rank() * 100 + row));
    for (Index row = 0; row < receive_rows.back(); ++row) expected.push_back(static_cast<float>(peer * 100 + row));
  }
  const auto from = on_device(sent);
  kernels::Array<float> to(Device::kCuda, std::ssize(expected));
  all_to_all_v(kGpu, *comm, "test", from.data(), send_rows, to.data(), receive_rows, 4);
  EXPECT_EQ(on_host(to), expected);
}

TEST(DeviceArrays, AreGatheredInRankOrder) {
  const auto comm = world_communicator();
  const auto mine = on_device({static_cast<float>(comm->rank()), 0.5f});
  kernels::Array<float> all(Device::kCuda, 2 * comm->size());
  gather_arrays(kGpu, *comm, "test", mine.data(), 8, all.data());
  std::vector<float> expected;
  for (int rank = 0; rank < comm->size(); ++rank) expected.insert(expected.end(), {static_cast<float>(rank), 0.5f});
  EXPECT_EQ(on_host(all), expected);
}

// The sums of the CPU's tree, bit by bit, and the library's.
TEST(DeviceArrays, AddUpByTheSameTree) {
  const auto comm = world_communicator();
  std::vector<float> values(501), scratch(251);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = 1 / static_cast<float>(3 + 7 * i + static_cast<std::size_t>(comm->rank()));
  auto tree = on_device(values), library = on_device(values);
  kernels::Array<float> room(Device::kCuda, 251);
  tree_reduce(kGpu, *comm, "test", tree.data(), 501, room.data());
  comm->all_reduce(kGpu, library.data(), 501);
  ThreadPool threads(1);
  tree_reduce({.threads = &threads}, *comm, "test", values.data(), 501, scratch.data());
  EXPECT_EQ(on_host(tree), values);
  const std::vector<float> sums = on_host(library);
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(sums[i], values[i], 1e-6f);
}

// How a rank gives up waiting for a GPU that waits for other ranks.
TEST(DeviceArrays, AreWaitedForUnderWatch) {
  const std::vector<float> values = {1, 2, 3};
  const auto array = on_device(values);
  int num_calls = 0;
  kernels::watch_waits(Device::kCuda, [&](double seconds) {
    EXPECT_GE(seconds, 0);
    ++num_calls;
  });
  EXPECT_EQ(on_host(array), values);
  EXPECT_GT(num_calls, 0);
  kernels::watch_waits(Device::kCuda, [](double) { fail("nobody comes"); });
  EXPECT_THROW(on_host(array), Error);
  kernels::watch_waits(Device::kCuda, nullptr);
  EXPECT_EQ(on_host(array), values);
}

}  // namespace
}  // namespace switchyard
