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

}  // namespace switchyard::kernels
