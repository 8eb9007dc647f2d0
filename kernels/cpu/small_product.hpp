// Products of matrices that fit the caches, in registers' tiles: what attention needs within one head.
#pragma once

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

constexpr Index kLanes = 8;     // floats in a vector
constexpr Index kTileRows = 6;  // rows of C that a tile holds in registers

// C = A B. C is (round_up(m, kTileRows), n) and B is (k, n), rows n elements apart, n a multiple of kLanes, both
// 32-byte aligned. A's element (row, i) is a[row * row_stride + i * step]; for rows from m to round_up(m, kTileRows) it
// must be readable, and what comes of it lands in the rows of C that nobody reads.
struct SmallProduct {
  Index m = 0, n = 0, k = 0;
  const float* a = nullptr;
  Index row_stride = 0, step = 1;
  const float* b = nullptr;
  float* c = nullptr;
};
void small_product(const SmallProduct& product);

// to[c, r] = from[r, c] for from (rows, cols); strides in elements.
void transpose(Index rows, Index cols, const float* from, Index from_stride, float* to, Index to_stride);

}  // namespace switchyard::kernels::cpu
