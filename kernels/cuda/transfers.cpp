// Copies between host and GPU. Where host memory is not page-locked, CUDA may let each copy wait for the stream; so
// they go by way of memory that is.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/runtime.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr Index kMostStaged = Index{1} << 20;  // of what the host reads with one wait, in bytes
constexpr Index kAlignment = 64;

std::map<void*, HostArray<std::byte>>& downloads() {
  static std::map<void*, HostArray<std::byte>> by_stream;
  return by_stream;
}

std::byte* download_room(const Context& context) {
  HostArray<std::byte>& memory = downloads()[context.stream];
  if (memory.size() == 0) memory = HostArray<std::byte>(Device::kCuda, kMostStaged);
  return memory.data();
}

// Calls visit(copy, place) with a place in `room` for each copy's bytes.
template <typename Visit>
void for_each_staged(std::span<const HostCopy> copies, std::byte* room, const Visit& visit) {
  for (const HostCopy& each : copies) {
    if (each.bytes > 0) visit(each, room);
    room += round_up(each.bytes, kAlignment);
  }
}

}  // namespace

void release_staging(void* stream) { downloads().erase(stream); }

// From page-locked memory the copy goes on after the return; it must stay as it is until the stream has come so far.
void copy_to_device(const Context& context, void* to, const void* from, Index bytes) {
  copy_bytes(context, to, from, bytes, cudaMemcpyHostToDevice);
}

void copy_to_host(const Context& context, void* to, const void* from, Index bytes) {
  const HostCopy copy{to, from, bytes};
  cuda::copy_to_host(context, std::span(&copy, 1));
}

void copy_to_host(const Context& context, std::span<const HostCopy> copies) {
  Index bytes = 0;
  for (const HostCopy& each : copies) bytes += round_up(each.bytes, kAlignment);
  if (bytes == 0) return;
  if (bytes > kMostStaged) {
    for (const HostCopy& each : copies) copy_bytes(context, each.to, each.from, each.bytes, cudaMemcpyDeviceToHost);
    return synchronize(context);
  }
  std::byte* const room = download_room(context);
  for_each_staged(copies, room, [&](const HostCopy& copy, std::byte* staged) {
    copy_bytes(context, staged, copy.from, copy.bytes, cudaMemcpyDeviceToHost);
  });
  synchronize(context);
  for_each_staged(copies, room, [](const HostCopy& copy, const std::byte* staged) {
    std::memcpy(copy.to, staged, static_cast<std::size_t>(copy.bytes));
  });
}

}  // namespace switchyard::kernels::cuda
