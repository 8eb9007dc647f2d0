// Arrays (rows, cols) that matrix products read or write. In bf16 a device may multiply operands as the kernel before
// has left them, already rounded; on others they stay fp32 and the product rounds them itself. Each operand is rounded
// once in either case, so the results have the same bits. What a product writes may be rounded likewise, for kernels
// that read an Operand: that is a rounding more than in fp32 memory.
#pragma once

#include <cstdint>

#include "core/context.hpp"
#include "core/host_device.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// What operands are rounded to before they are multiplied; sums are fp32 in any case. kTf32: fp32 in memory, of which a
// GPU may read 10 of the 23 bits after the point; to a CPU it is kFp32.
enum class Precision { kFp32, kTf32, kBf16 };

// The upper half of a float, rounded to nearest, ties to even.
struct Bf16 {
  std::uint16_t bits = 0;
};

// Whether the device multiplies operands that are rounded already. Where it does not, kernels are given no array of
// Bf16, neither to read nor to write.
bool reads_rounded(Device device, Precision precision);

// Elements from row to row of a rounded array: rows are 16-byte aligned. What lies in a row from `cols` on is not read.
SWITCHYARD_HOST_DEVICE constexpr Index rounded_cols(Index cols) { return (cols + 7) / 8 * 8; }

struct Operand {
  const float* values = nullptr;  // (rows, cols)
  const Bf16* rounded = nullptr;  // (rows, rounded_cols(cols)); null: `values` is read

  Operand() = default;
  Operand(const float* fp32, const Bf16* bf16 = nullptr) : values(fp32), rounded(bf16) {}
  // From row `row` on.
  Operand from_row(Index row, Index cols) const {
    return {values ? values + row * cols : nullptr, rounded ? rounded + row * rounded_cols(cols) : nullptr};
  }
};

// What a kernel writes: each of the two arrays that there is. A product writes one.
struct NewOperand {
  float* values = nullptr;
  Bf16* rounded = nullptr;

  NewOperand() = default;
  NewOperand(float* fp32, Bf16* bf16 = nullptr) : values(fp32), rounded(bf16) {}
  operator Operand() const { return {values, rounded}; }
  NewOperand from_row(Index row, Index cols) const {
    return {values ? values + row * cols : nullptr, rounded ? rounded + row * rounded_cols(cols) : nullptr};
  }
};

// Who reads an array: products, and kernels that take an Operand, need no fp32 values where they are rounded; others
// read nothing else.
enum class Readers { kProducts, kOthers, kBoth };

}  // namespace switchyard::kernels
