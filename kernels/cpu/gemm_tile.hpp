// The innermost loop of a product: a tile of C in registers, from one packed panel of A and one of B.
#pragma once

#include <span>

#include "kernels/cpu/gemm_units.hpp"

namespace switchyard::kernels::cpu {

// With AVX-512 24 of 32 registers hold sums, without it 8 of 16.
constexpr Index kGemmRows = kUnitLanes == 16 ? 12 : 4;
constexpr Index kGemmCols = 2 * kUnitLanes;

struct GemmTile {
  Index depth_units = 0;
  const std::uint32_t* a = nullptr;  // (depth_units, kGemmRows)
  const std::uint32_t* b = nullptr;  // (depth_units, kGemmCols)
  Index rows = 0, cols = 0;          // of C that are written
  Index first = 0, stride = 0;       // the tile's first element in C and the addends, and from row to row
  float* c = nullptr;
  const float* bias = nullptr;  // (cols); null: none
  std::span<const float* const> addends;
};
// C = A B plus the bias, or the addends in turn. Each element of C is summed along the depth in order, whatever the
// tile it lies in.
template <typename Unit>
void gemm_tile(const GemmTile& tile);

}  // namespace switchyard::kernels::cpu
