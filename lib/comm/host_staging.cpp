#include "comm/host_staging.hpp"

#include <vector>

namespace switchyard {

void HostStaging::exchange(const Context& context, Ranks& ranks, std::string_view what,
                           std::span<const Transfer> transfers) {
  Index bytes = 0;
  for (const Transfer& each : transfers) bytes += each.send_bytes + each.receive_bytes;
  std::byte* next = room(context.device, bytes);
  std::vector<Transfer> staged;
  std::vector<kernels::HostCopy> downloads;
  for (const Transfer& each : transfers) {
    if (each.peer == ranks.rank()) {
      kernels::copy(context, each.receive, each.send, each.send_bytes);
      continue;
    }
    staged.push_back({each.peer, next, each.send_bytes, next + each.send_bytes, each.receive_bytes});
    downloads.push_back({next, each.send, each.send_bytes});
    next += each.send_bytes + each.receive_bytes;
  }
  kernels::copy_to_host(context, downloads);
  ranks.exchange(what, staged);
  auto arrived = staged.begin();
  for (const Transfer& each : transfers)
    if (each.peer != ranks.rank()) {
      kernels::copy_to_device(context, each.receive, arrived->receive, each.receive_bytes);
      ++arrived;
    }
}

void HostStaging::in_host_memory(const Context& context, float* data, Index size,
                                 const std::function<void(float*)>& work) {
  const Index bytes = size * Index{sizeof(float)};
  auto* copy = reinterpret_cast<float*>(room(context.device, bytes));
  kernels::copy_to_host(context, copy, data, bytes);
  work(copy);
  kernels::copy_to_device(context, data, copy, bytes);
}

std::byte* HostStaging::room(Device device, Index bytes) {
  if (bytes > memory_.size()) memory_ = kernels::HostArray<std::byte>(device, bytes);
  return memory_.data();
}

}  // namespace switchyard
