// Products of matrices that fit the caches, in tiles that fit the registers: what attention needs within one head.
#pragma once

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

constexpr Index kTileRows = 6;  // rows of C that a tile holds in registers

// C = A B. C is (round_up(m, kTileRows), n) and B is (k, n), n a multiple of kLanes; strides are elements from row to
// row. A's element (row, i) is a[row * a_row_stride + i * a_step]; for rows from m to round_up(m, kTileRows) it must be
// readable, and what comes of it lands in those rows of C.
struct SmallProduct {
  Index m = 0, n = 0, k = 0;
  const float* a = nullptr;
  Index a_row_stride = 0, a_step = 1;
  const float* b = nullptr;
  Index b_stride = 0;
  float* c = nullptr;
  Index c_stride = 0;
};
void small_product(const SmallProduct& product);

}  // namespace switchyard::kernels::cpu
