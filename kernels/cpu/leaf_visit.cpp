#include "kernels/cpu/leaf_visit.hpp"

#include <algorithm>

#include "kernels/cpu/dots.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Rows and hidden units, or rows and vectors of y, that are computed together: their sums fill half the registers.
constexpr Index kMostRows = 4, kMostUnits = kUnitLanes == 16 ? 4 : 2;

// kRows rows at hidden units unit .. unit + kUnits - 1: hidden (kRows, leaf_width).
template <int kRows, int kUnits>
inline void hidden_units(const LeafForward& leaf, const std::int32_t* rows, Index unit, float* hidden) {
  const float* x[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) x[r] = leaf.x + rows[r] * leaf.width;
  const float* w = leaf.w1 + unit * leaf.width;
  FloatLanes sums[kRows * kUnits] = {};
  for_vectors(leaf.width, [&](Index i, auto at) {
    FloatLanes values[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      values[r] = at(x[r] + i);
      keep_in_register(values[r]);
    }
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) {
      FloatLanes weights = at(w + u * leaf.width + i);
      keep_in_register(weights);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[r * kUnits + u] += values[r] * weights;
    }
  });
  float products[kRows * kUnits];
  store_sums(sums, products);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) {
      const float z = products[r * kUnits + u] + leaf.b1[unit + u];
      hidden[r * leaf.leaf_width + unit + u] = z <= 0 ? 0 : z;  // NaN stays
    }
}

// kRows rows of y at kVectors vectors from column `col` on, `count` columns at most.
template <int kRows, int kVectors>
inline void outputs(const LeafForward& leaf, const std::int32_t* rows, const float* residual, Index col, Index count,
                    const float* hidden) {
  FloatLanes sums[kRows][kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const FloatLanes bias = load_floats(leaf.b2 + col + v * kUnitLanes, count - v * kUnitLanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r][v] = bias;
  }
  const float* w = leaf.w2 + col;
  for (Index unit = 0; unit < leaf.leaf_width; ++unit, w += leaf.out) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      FloatLanes weights = kVectors > 1 ? load_floats(w + v * kUnitLanes) : load_floats(w, count);
      keep_in_register(weights);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[r][v] += hidden[r * leaf.leaf_width + unit] * weights;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const Index place = rows[r] * leaf.out + col;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Index first = place + v * kUnitLanes, left = count - v * kUnitLanes;
      const FloatLanes before = residual ? load_floats(residual + first, left) : FloatLanes{};
      // As where the residual is added later: 0 + -0 = 0.
      store_some(leaf.y + first, (Units)(before + (FloatLanes{} + sums[r][v])), left);
    }
  }
}

template <int kRows>
void visit_rows(const LeafForward& leaf, const std::int32_t* rows, const float* residual, float* hidden) {
  // What is written, and what is added to it, come to the caches while the hidden units are computed.
  for (int r = 0; r < kRows; ++r)
    for (Index col = 0; col < leaf.out; col += kUnitLanes) {
      __builtin_prefetch(leaf.y + rows[r] * leaf.out + col, 1);
      if (residual) __builtin_prefetch(residual + rows[r] * leaf.out + col);
    }
  Index unit = 0;
  for (; unit + kMostUnits <= leaf.leaf_width; unit += kMostUnits)
    hidden_units<kRows, kMostUnits>(leaf, rows, unit, hidden);
  for (; unit < leaf.leaf_width; ++unit) hidden_units<kRows, 1>(leaf, rows, unit, hidden);

  Index col = 0;
  constexpr Index kWide = kMostUnits * kUnitLanes;
  for (; col + kWide <= leaf.out; col += kWide) outputs<kRows, kMostUnits>(leaf, rows, residual, col, kWide, hidden);
  for (; col < leaf.out; col += kUnitLanes)
    outputs<kRows, 1>(leaf, rows, residual, col, std::min(kUnitLanes, leaf.out - col), hidden);
}

}  // namespace

void visit_leaf(const LeafForward& leaf, std::span<const std::int32_t> rows, const float* residual) {
  thread_local Scratch<float> scratch;
  float* hidden = scratch.get(kMostRows * leaf.leaf_width);
  const std::int32_t* row = rows.data();
  Index left = static_cast<Index>(rows.size());
  for (; left >= kMostRows; left -= kMostRows, row += kMostRows) visit_rows<kMostRows>(leaf, row, residual, hidden);
  if (left == 3) visit_rows<3>(leaf, row, residual, hidden);
  if (left == 2) visit_rows<2>(leaf, row, residual, hidden);
  if (left == 1) visit_rows<1>(leaf, row, residual, hidden);
}

}  // namespace switchyard::kernels::cpu
