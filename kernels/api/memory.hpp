// Device memory. Nothing outside kernels/ reads or writes it but through the functions below.
#pragma once

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
void copy(const Context& context, void* to, const void* from, Index bytes);            // device to device
void copy_to_device(const Context& context, void* to, const void* from, Index bytes);  // from host memory
void copy_to_host(const Context& context, void* to, const void* from, Index bytes);    // waits for the stream

// An owned array in device memory.
template <typename T>
class Array {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Array() = default;
  Array(Device device, Index size)
      : device_(device), size_(size), data_(static_cast<T*>(allocate(device, size * Index{sizeof(T)}))) {}
  ~Array() {
    if (data_) release(device_, data_);
  }
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    swap(other);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }

  void upload(const Context& context, std::span<const T> host, Index offset = 0) {
    copy_to_device(context, data_ + offset, host.data(), static_cast<Index>(host.size_bytes()));
  }
  void clear(const Context& context) { fill_zero(context, data_, size_ * Index{sizeof(T)}); }

 private:
  void swap(Array& other) {
    std::swap(device_, other.device_);
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
  }

  Device device_ = Device::kCpu;
  Index size_ = 0;
  T* data_ = nullptr;
};

// An owned array of host memory for copies to and from the device.
template <typename T>
class HostArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  HostArray() = default;
  HostArray(Device device, Index size)
      : device_(device), size_(size), data_(static_cast<T*>(allocate_host(device, size * Index{sizeof(T)}))) {}
  ~HostArray() {
    if (data_) release_host(device_, data_);
  }
  HostArray(HostArray&& other) noexcept { swap(other); }
  HostArray& operator=(HostArray&& other) noexcept {
    swap(other);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }

 private:
  void swap(HostArray& other) {
    std::swap(device_, other.device_);
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
  }

  Device device_ = Device::kCpu;
  Index size_ = 0;
  T* data_ = nullptr;
};

}  // namespace switchyard::kernels
