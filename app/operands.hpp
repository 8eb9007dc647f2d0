// The arrays that a kernel works on while `switchyard bench` times it, and the bytes that it cannot avoid to move.
#pragma once

#include <vector>

#include "kernels/api/memory.hpp"

namespace switchyard {

// Each array is taken once, as what the kernel does with it. Floats start as numbers near one.
class Operands {
 public:
  explicit Operands(const Context& context) : context_(context) {}

  template <typename T = float>
  const T* read(Index count) {
    return static_cast<const T*>(add(count * Index{sizeof(T)}, true, false));
  }
  template <typename T>
  const T* read(const std::vector<T>& values) {
    T* array = static_cast<T*>(add(static_cast<Index>(values.size() * sizeof(T)), true, false));
    kernels::copy_to_device(context_, array, values.data(), static_cast<Index>(values.size() * sizeof(T)));
    return array;
  }
  template <typename T = float>
  T* write(Index count) {
    return static_cast<T*>(add(count * Index{sizeof(T)}, false, true));
  }
  // Read, and then written in the same place.
  template <typename T = float>
  T* update(Index count) {
    return static_cast<T*>(add(count * Index{sizeof(T)}, true, true));
  }

  const Context& context() const { return context_; }
  // Each array's bytes, once for reading and once for writing.
  double bytes() const;
  // Reads and writes these very arrays, one after the other, and computes nothing: what memory and caches allow a
  // kernel over them. What is read keeps its values.
  void pass();

 private:
  struct Array {
    kernels::Array<std::byte> data;
    bool is_read, is_written;
  };
  void* add(Index bytes, bool is_read, bool is_written);

  const Context& context_;
  std::vector<Array> arrays_;
};

}  // namespace switchyard
