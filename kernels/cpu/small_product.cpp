#include "kernels/cpu/small_product.hpp"

#include "kernels/cpu/vector.hpp"

namespace switchyard::kernels::cpu {

namespace {

// kTileRows rows and kVectors vectors of C, from column first_col on.
template <int kVectors>
inline void multiply_tile(const SmallProduct& product, Index first_row, Index first_col) {
  Vector sums[kTileRows][kVectors] = {};
  const Index row_stride = product.a_row_stride, step = product.a_step, b_stride = product.b_stride;
  const float* a = product.a + first_row * row_stride;
  const float* b = product.b + first_col;
  for (Index i = 0; i < product.k; ++i, a += step, b += b_stride) {
    Vector b_vectors[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) b_vectors[v] = load(b + v * kLanes);
#pragma GCC unroll 6
    for (int row = 0; row < kTileRows; ++row) {
      const Vector a_value = broadcast(a[row * row_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[row][v] += a_value * b_vectors[v];
    }
  }
  float* c = product.c + first_row * product.c_stride + first_col;
#pragma GCC unroll 6
  for (int row = 0; row < kTileRows; ++row)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(c + row * product.c_stride + v * kLanes, sums[row][v]);
}

template <int kVectors>
void multiply_columns(const SmallProduct& product, Index first_col) {
  for (Index row = 0; row < product.m; row += kTileRows) multiply_tile<kVectors>(product, row, first_col);
}

}  // namespace

void small_product(const SmallProduct& product) {
  for (Index col = 0; col < product.n;) {
    // Four vectors at a time, but not one alone where that can be helped: 5 = 3 + 2, 9 = 4 + 3 + 2.
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

}  // namespace switchyard::kernels::cpu
