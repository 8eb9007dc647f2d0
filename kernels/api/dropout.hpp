#pragma once

#include <cmath>
#include <cstdint>

#include "core/random.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// Inverted dropout as a function of the element's identity; forward and backward call it with the same key.
// Element (row, column) takes 16 bits of Philox: word (column % 8) / 2 of block column / 8, low half for even columns;
// it is kept where those bits are >= threshold(), and then scaled by 65536 / (65536 - threshold()).
struct Dropout {
  float probability = 0;  // in [0, 1); 0: every element is kept and no random number is drawn
  RandomKey key{};
  // The Philox row of array row r is row_ids[r] (device), or first_row + r where row_ids is null.
  const std::int32_t* row_ids = nullptr;
  std::uint32_t first_row = 0;

  std::uint32_t threshold() const { return static_cast<std::uint32_t>(std::lround(probability * 65536.0f)); }
  float scale() const { return 65536.0f / (65536.0f - static_cast<float>(threshold())); }
};

}  // namespace switchyard::kernels
