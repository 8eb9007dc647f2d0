// Device memory. Nothing outside kernels/ reads or writes it but through the functions below.
#pragma once

#include <algorithm>
#include <span>
#include <type_traits>
#include <utility>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// 64-byte aligned, not initialised. Fails with the size asked for when there is no memory.
void* allocate(Device device, Index bytes);
void release(Device device, void* pointer);
// Host memory that the device copies to and from at full speed, and may read and write itself (CUDA: page-locked).
void* allocate_host(Device device, Index bytes);
void release_host(Device device, void* pointer);
void fill_zero(const Context& context, void* pointer, Index bytes);
void copy(const Context& context, void* to, const void* from, Index bytes);  // device to device
// From host memory, which may change as soon as this returns; the copy itself is made in order with the stream.
void copy_to_device(const Context& context, void* to, const void* from, Index bytes);
// Waits for the stream; where the context has turns, others have theirs meanwhile.
void copy_to_host(const Context& context, void* to, const void* from, Index bytes);

struct HostCopy {
  void* to = nullptr;          // host memory
  const void* from = nullptr;  // device memory
  Index bytes = 0;
};
// All of them with one wait; none where there is nothing to copy.
void copy_to_host(const Context& context, std::span<const HostCopy> copies);

// Bytes of so many elements; where no Index could tell them, more than any device has, so that nothing is allocated.
template <typename T>
Index bytes_of(Index count) {
  constexpr Index kMost = Index{1} << 62;
  Index bytes = 0;
  return __builtin_mul_overflow(count, Index{sizeof(T)}, &bytes) ? kMost : std::min(bytes, kMost);
}

struct DeviceMemory {
  static void* allocate(Device device, Index bytes) { return kernels::allocate(device, bytes); }
  static void release(Device device, void* pointer) { kernels::release(device, pointer); }
};
struct HostMemory {
  static void* allocate(Device device, Index bytes) { return allocate_host(device, bytes); }
  static void release(Device device, void* pointer) { release_host(device, pointer); }
};

// An array that ends with its owner.
template <typename T, typename Memory>
class OwnedArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  OwnedArray() = default;
  OwnedArray(Device device, Index size)
      : device_(device), size_(size), data_(static_cast<T*>(Memory::allocate(device, bytes_of<T>(size)))) {}
  ~OwnedArray() {
    if (data_) Memory::release(device_, data_);
  }
  OwnedArray(OwnedArray&& other) noexcept { swap(other); }
  OwnedArray& operator=(OwnedArray&& other) noexcept {
    swap(other);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }

 private:
  void swap(OwnedArray& other) {
    std::swap(device_, other.device_);
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
  }

  Device device_ = Device::kCpu;
  Index size_ = 0;
  T* data_ = nullptr;
};

// In host memory, for copies to and from the device.
template <typename T>
using HostArray = OwnedArray<T, HostMemory>;

// In device memory.
template <typename T>
class Array : public OwnedArray<T, DeviceMemory> {
 public:
  using OwnedArray<T, DeviceMemory>::OwnedArray;

  void upload(const Context& context, std::span<const T> host, Index offset = 0) {
    copy_to_device(context, this->data() + offset, host.data(), static_cast<Index>(host.size_bytes()));
  }
  void clear(const Context& context) { fill_zero(context, this->data(), this->size() * Index{sizeof(T)}); }
};

}  // namespace switchyard::kernels
