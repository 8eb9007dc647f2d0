#include "comm/host_staging.hpp"

#include <utility>

namespace switchyard {

void HostStaging::exchange(const Context& context, int rank, std::span<const Transfer> transfers,
                           const HostExchange& ranks) {
  Index bytes = 0;
  for (const Transfer& each : transfers) bytes += each.send_bytes + each.receive_bytes;
  kernels::HostArray<std::byte> room = take_room(context.device, bytes);
  std::byte* next = room.data();
  std::vector<Transfer> staged;
  std::vector<kernels::HostCopy> downloads;
  for (const Transfer& each : transfers) {
    if (each.peer == rank) {
      kernels::copy(context, each.receive, each.send, each.send_bytes);
      continue;
    }
    staged.push_back({each.peer, next, each.send_bytes, next + each.send_bytes, each.receive_bytes});
    downloads.push_back({next, each.send, each.send_bytes});
    next += each.send_bytes + each.receive_bytes;
  }
  kernels::copy_to_host(context, downloads);
  ranks(staged);
  auto arrived = staged.begin();
  for (const Transfer& each : transfers)
    if (each.peer != rank) {
      kernels::copy_to_device(context, each.receive, arrived->receive, each.receive_bytes);
      ++arrived;
    }
  free_.push_back(std::move(room));
}

void HostStaging::in_host_memory(const Context& context, float* data, Index size,
                                 const std::function<void(float*)>& work) {
  const Index bytes = size * Index{sizeof(float)};
  kernels::HostArray<std::byte> room = take_room(context.device, bytes);
  auto* copy = reinterpret_cast<float*>(room.data());
  kernels::copy_to_host(context, copy, data, bytes);
  work(copy);
  kernels::copy_to_device(context, data, copy, bytes);
  free_.push_back(std::move(room));
}

kernels::HostArray<std::byte> HostStaging::take_room(Device device, Index bytes) {
  kernels::HostArray<std::byte> room;
  if (!free_.empty()) {
    room = std::move(free_.back());
    free_.pop_back();
  }
  if (bytes > room.size()) room = kernels::HostArray<std::byte>(device, bytes);
  return room;
}

}  // namespace switchyard
