#include "kernels/cpu/transpose.hpp"

namespace switchyard::kernels::cpu {

namespace {

typedef float Lanes __attribute__((vector_size(64)));
typedef float LanesAnywhere __attribute__((vector_size(64), may_alias, aligned(sizeof(float))));
typedef std::int32_t LaneOrder __attribute__((vector_size(64)));

// Interleaving rows i and i + 8 into rows 2 i and 2 i + 1 rotates the bits of an element's (row, column) by one; after
// four times row and column have changed places. Loads and stores are whole cache lines, so that strides which are
// powers of two do no harm.
inline void transpose_tile(const float* from, Index from_stride, float* to, Index to_stride) {
  constexpr LaneOrder kLow = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  constexpr LaneOrder kHigh = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  Lanes rows[16], mixed[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = *reinterpret_cast<const LanesAnywhere*>(from + i * from_stride);
#pragma GCC unroll 4
  for (int step = 0; step < 4; ++step) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      mixed[2 * i] = __builtin_shuffle(rows[i], rows[i + 8], kLow);
      mixed[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + 8], kHigh);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = mixed[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) *reinterpret_cast<LanesAnywhere*>(to + i * to_stride) = rows[i];
}

}  // namespace

void transpose_tiles(Index rows, Index cols, const float* from, Index from_stride, float* to, Index to_stride) {
  for (Index r = 0; r < rows; r += kTransposeTile)
    for (Index c = 0; c < cols; c += kTransposeTile)
      transpose_tile(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
}

void transpose(Index rows, Index cols, const float* from, Index from_stride, float* to, Index to_stride) {
  const Index tiled_rows = rows / kTransposeTile * kTransposeTile, tiled_cols = cols / kTransposeTile * kTransposeTile;
  transpose_tiles(tiled_rows, tiled_cols, from, from_stride, to, to_stride);
  for (Index r = 0; r < rows; ++r)
    for (Index c = r < tiled_rows ? tiled_cols : 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

}  // namespace switchyard::kernels::cpu
