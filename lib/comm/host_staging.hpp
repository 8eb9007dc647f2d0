// Arrays of a device go from rank to rank by way of host memory, where ranks cannot reach each other's devices.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "core/context.hpp"
#include "core/ranks.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {

class HostStaging {
 public:
  // What exchanges host memory; it may begin another exchange of arrays before its own is done.
  using HostExchange = std::function<void(std::span<const Transfer>)>;

  // The transfers of device memory of this rank, done by `ranks`. Waits for the context's stream.
  void exchange(const Context& context, int rank, std::span<const Transfer> transfers, const HostExchange& ranks);

  // Copies data (size floats) to host memory, gives that to `work`, and copies it back.
  void in_host_memory(const Context& context, float* data, Index size, const std::function<void(float*)>& work);

 private:
  kernels::HostArray<std::byte> take_room(Device device, Index bytes);

  std::vector<kernels::HostArray<std::byte>> free_;
};

}  // namespace switchyard
