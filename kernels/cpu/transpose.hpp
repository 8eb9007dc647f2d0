#pragma once

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

constexpr Index kTransposeTile = 16;

// to[c, r] = from[r, c] for from (rows, cols); strides in elements from row to row.
void transpose(Index rows, Index cols, const float* from, Index from_stride, float* to, Index to_stride);

// The same for rows and cols that are multiples of kTransposeTile.
void transpose_tiles(Index rows, Index cols, const float* from, Index from_stride, float* to, Index to_stride);

}  // namespace switchyard::kernels::cpu
