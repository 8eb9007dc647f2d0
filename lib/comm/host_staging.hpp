// Arrays of a device go from rank to rank by way of host memory, where ranks cannot reach each other's devices.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "core/context.hpp"
#include "core/ranks.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {

class HostStaging {
 public:
  // The transfers of device memory, done by ranks.exchange(). Waits for the context's stream.
  void exchange(const Context& context, Ranks& ranks, std::string_view what, std::span<const Transfer> transfers);

  // Copies data (size floats) to host memory, gives that to `work`, and copies it back.
  void in_host_memory(const Context& context, float* data, Index size, const std::function<void(float*)>& work);

 private:
  std::byte* room(Device device, Index bytes);

  kernels::HostArray<std::byte> memory_;
};

}  // namespace switchyard
