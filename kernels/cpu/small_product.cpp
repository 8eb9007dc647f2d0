#include "kernels/cpu/small_product.hpp"

namespace switchyard::kernels::cpu {

namespace {

typedef float Vector __attribute__((vector_size(sizeof(float) * kLanes), may_alias));

// kTileRows rows and kVectors vectors of C from column first_col on.
template <int kVectors>
void multiply_tile(const SmallProduct& product, Index first_row, Index first_col) {
  Vector sums[kTileRows][kVectors] = {};
  const float* a = product.a + first_row * product.row_stride;
  const float* b = product.b + first_col;
  for (Index i = 0; i < product.k; ++i, a += product.step, b += product.n)
    for (int v = 0; v < kVectors; ++v) {
      const Vector b_vector = *reinterpret_cast<const Vector*>(b + v * kLanes);
      for (int row = 0; row < kTileRows; ++row) sums[row][v] += a[row * product.row_stride] * b_vector;
    }
  for (int row = 0; row < kTileRows; ++row)
    for (int v = 0; v < kVectors; ++v)
      *reinterpret_cast<Vector*>(product.c + (first_row + row) * product.n + first_col + v * kLanes) = sums[row][v];
}

template <int kVectors>
void multiply_columns(const SmallProduct& product, Index first_col) {
  for (Index row = 0; row < product.m; row += kTileRows) multiply_tile<kVectors>(product, row, first_col);
}

}  // namespace

void small_product(const SmallProduct& product) {
  for (Index col = 0; col < product.n;) {
    // Four vectors at a time, but never one alone where that can be helped: 5 = 3 + 2, 9 = 4 + 3 + 2.
    const Index left = (product.n - col) / kLanes;
    const Index vectors = left == 5 ? 3 : left < 4 ? left : 4;
    switch (vectors) {
      case 1:
        multiply_columns<1>(product, col);
        break;
      case 2:
        multiply_columns<2>(product, col);
        break;
      case 3:
        multiply_columns<3>(product, col);
        break;
      default:
        multiply_columns<4>(product, col);
        break;
    }
    col += vectors * kLanes;
  }
}

void transpose(Index rows, Index cols, const float* from, Index from_stride, float* to, Index to_stride) {
  for (Index c = 0; c < cols; ++c)
    for (Index r = 0; r < rows; ++r) to[c * to_stride + r] = from[r * from_stride + c];
}

}  // namespace switchyard::kernels::cpu
