#pragma once

#include "kernels/api/memory.hpp"

namespace switchyard::kernels::cpu {

// Working memory of one thread, 64-byte aligned, that only grows: a training step allocates nothing once it has run.
// Its contents do not survive from one operation to the next.
template <typename T>
class Scratch {
 public:
  T* get(Index size) {
    if (size > array_.size()) array_ = Array<T>(Device::kCpu, size);
    return array_.data();
  }

 private:
  Array<T> array_;
};

}  // namespace switchyard::kernels::cpu
