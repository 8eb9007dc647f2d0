// Arrays in bf16 as products and kernels hand them on.
#pragma once

#include <algorithm>
#include <bit>

#include "kernel_test.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels {

inline Floats rounded(const Floats& values) {
  Floats result(values.size());
  std::transform(values.begin(), values.end(), result.begin(),
                 [](float x) { return static_cast<float>(rounded_to_bf16(x)); });
  return result;
}

// A rounded array, NaN everywhere until it is written; between guards.
class RoundedOutput {
 public:
  RoundedOutput(Index rows, Index cols)
      : cols_(cols),
        pairs_(Floats(static_cast<std::size_t>(rows * rounded_cols(cols) / 2), std::bit_cast<float>(0xffffffffu))) {}
  // What a kernel would have written of these values, and NaN in the columns behind them.
  RoundedOutput(const Floats& values, Index cols) : RoundedOutput(static_cast<Index>(values.size()) / cols, cols) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(rounded_to_bf16(values[i])));
      data()[place(static_cast<Index>(i))].bits = static_cast<std::uint16_t>(bits >> 16);
    }
  }

  // What lies behind the rows' columns is as it was.
  bool padding_is_untouched() const {
    const Floats pairs = pairs_.values();
    const Bf16* elements = reinterpret_cast<const Bf16*>(pairs.data());
    for (Index i = 0; i < static_cast<Index>(pairs.size()) * 2; ++i)
      if (i % rounded_cols(cols_) >= cols_ && elements[i].bits != 0xffffu) return false;
    return true;
  }

  Bf16* data() { return reinterpret_cast<Bf16*>(pairs_.data()); }
  // (rows, cols)
  Floats values() const {
    const Floats pairs = pairs_.values();
    const Bf16* elements = reinterpret_cast<const Bf16*>(pairs.data());
    Floats result;
    for (Index i = 0; i < static_cast<Index>(pairs.size()) * 2 / rounded_cols(cols_) * cols_; ++i)
      result.push_back(std::bit_cast<float>(std::uint32_t{elements[place(i)].bits} << 16));
    return result;
  }

 private:
  Index place(Index i) const { return i / cols_ * rounded_cols(cols_) + i % cols_; }
  Index cols_;
  Output pairs_;  // of neighbours
};

struct Shape {
  Index rows, cols;
};
// Kernels over arrays (rows, cols).
class OfRowsAndCols : public testing::TestWithParam<Shape> {
 protected:
  const Index rows = GetParam().rows, cols = GetParam().cols, size = rows * cols;
  const Floats x = random_floats(size, 1, 4), d_y = random_floats(size, 2), of_cols = random_floats(cols, 3);
  const Dropout dropout = some_dropout(0.1f);
};

// Whether the device's kernels are given such arrays; where they are not, ctest runs no test that needs them.
inline bool device_takes_rounded() { return reads_rounded(test_device(), Precision::kBf16); }

}  // namespace switchyard::kernels
