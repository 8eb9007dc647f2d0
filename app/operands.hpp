// The arrays that a kernel works on while `switchyard bench` times it, and the bytes that it cannot avoid to move.
#pragma once

#include <vector>

#include "kernels/api/memory.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard {

// Device memory with numbers near one, as fp32 as well as bf16.
void fill_array(const Context& context, void* array, Index bytes);

// Each array is taken once, as what the kernel does with it. Floats start as numbers near one.
class Operands {
 public:
  // precision: of the products that read what kernels write.
  Operands(const Context& context, kernels::Precision precision) : context_(context), precision_(precision) {}

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

  // Whether products read and write arrays that are rounded.
  bool rounds() const { return kernels::reads_rounded(context_.device, precision_); }
  // (rows, cols) as Pass::operand() has products and kernels read and write them.
  kernels::Operand read_operand(Index rows, Index cols);
  kernels::NewOperand write_operand(Index rows, Index cols, kernels::Readers readers = kernels::Readers::kProducts);
  // Read, and then written in the same place.
  kernels::NewOperand update_operand(Index rows, Index cols);

  const Context& context() const { return context_; }
  // Each array's bytes, once for reading and once for writing.
  double bytes() const;
  // What memory and caches allow a kernel over these arrays, nothing computed. CPU: reads and writes these very arrays,
  // one after the other; what is read keeps its values. GPU: copies half as many bytes, each read once and written
  // once.
  void pass();

 private:
  struct Array {
    kernels::Array<std::byte> data;
    bool is_read, is_written;
  };
  void* add(Index bytes, bool is_read, bool is_written);
  void copy_as_much();

  const Context& context_;
  kernels::Precision precision_;
  std::vector<Array> arrays_;
  kernels::Array<std::byte> copied_;  // GPU: where from and, behind that, where to
};

}  // namespace switchyard
