#include "kernels/cpu/gemm_tile.hpp"

#include <type_traits>

namespace switchyard::kernels::cpu {

namespace {

inline void store_row(const GemmTile& tile, Index row, Index first_col, FloatLanes sum) {
  const Index place = tile.first + row * tile.stride + first_col, cols = tile.cols - first_col;
  if (tile.bias) sum = sum + load_floats(tile.bias + first_col, cols);
  for (const float* addend : tile.addends) sum = load_floats(addend + place, cols) + sum;
  if (cols >= kUnitLanes)
    store_floats(tile.c + place, sum);
  else
    store_some(tile.c + place, (Units)sum, cols);
}

template <typename Unit, int kRows, int kVectors>
void multiply(const GemmTile& tile) {
  FloatLanes sums[kRows][kVectors] = {};
  // C and what is added come to the caches while the sums are made.
  const auto fetch = [&](const float* array, auto writes) {
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v)
        __builtin_prefetch(array + tile.first + row * tile.stride + v * kUnitLanes, decltype(writes)::value);
  };
  fetch(tile.c, std::true_type{});
  for (const float* addend : tile.addends) fetch(addend, std::false_type{});
  const std::uint32_t* a = tile.a;
  const std::uint32_t* b = tile.b;
  for (Index unit = 0; unit < tile.depth_units; ++unit, a += kGemmRows, b += kGemmCols) {
    Units b_units[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) b_units[v] = reinterpret_cast<const Units*>(b)[v];
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) Unit::multiply_add(sums[row][v], a[row], b_units[v]);
  }
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row)
    if (row < tile.rows)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) store_row(tile, row, v * kUnitLanes, sums[row][v]);
}

template <typename Unit, int kVectors>
void multiply_rows(const GemmTile& tile) {
  if constexpr (kGemmRows > 8)
    if (tile.rows > 8) return multiply<Unit, kGemmRows, kVectors>(tile);
  if constexpr (kGemmRows > 4)
    if (tile.rows > 4) return multiply<Unit, 8, kVectors>(tile);
  if (tile.rows <= 2) return multiply<Unit, 2, kVectors>(tile);
  return multiply<Unit, 4, kVectors>(tile);
}

}  // namespace

template <typename Unit>
void gemm_tile(const GemmTile& tile) {
  if (tile.cols > kUnitLanes)
    multiply_rows<Unit, 2>(tile);
  else
    multiply_rows<Unit, 1>(tile);
}

template void gemm_tile<Fp32Unit>(const GemmTile&);
template void gemm_tile<Bf16Unit>(const GemmTile&);

}  // namespace switchyard::kernels::cpu
