#include "kernels/cpu/leaf_visit.hpp"

#include <algorithm>

#include "kernels/cpu/dots.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Rows and hidden units, or rows and vectors of y, that are computed together: their sums fill half the registers.
constexpr Index kMostRows = 4, kMostUnits = kUnitLanes == 16 ? 4 : 2;

// hidden = max(products + b1, 0) for kRows rows at kUnits units from `unit` on; NaN stays.
template <int kRows, int kUnits>
inline void store_hidden(const LeafForward& leaf, Index unit, const float* products, float* hidden) {
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    float* to = hidden + r * leaf.leaf_width + unit;
    const float *z = products + r * kUnits, *b1 = leaf.b1 + unit;
    if constexpr (kUnits == 4) {
      const FourFloats fours = load_four(z) + load_four(b1);
      store_four(to, fours <= 0 ? FourFloats{} : fours);
    } else {
      for (int u = 0; u < kUnits; ++u) to[u] = z[u] + b1[u] <= 0 ? 0 : z[u] + b1[u];
    }
  }
}

// kRows rows at hidden units unit .. unit + kUnits - 1: hidden (kRows, leaf_width).
template <int kRows, int kUnits>
inline void hidden_units(const LeafForward& leaf, const std::int32_t* rows, Index unit, float* hidden) {
  const float* x[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) x[r] = leaf.x + rows[r] * leaf.width;
  const float* w = leaf.w1 + unit * leaf.width;
  FloatLanes sums[kRows * kUnits] = {};
  for_vectors(
      leaf.width, [&](Index i, auto at) __attribute__((always_inline)) {
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
  store_hidden<kRows, kUnits>(leaf, unit, products, hidden);
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

// Calls body.operator()<n>(i) for i = 0, n, .., n being 4 while so many of `count` are left, then what is left.
template <typename Body>
inline void for_groups(Index count, const Body& body) {
  Index i = 0;
  for (; i + 4 <= count; i += 4) body.template operator()<4>(i);
  if (count - i == 3) body.template operator()<3>(i);
  if (count - i == 2) body.template operator()<2>(i);
  if (count - i == 1) body.template operator()<1>(i);
}

// What is written, and what is added to it, come to the caches while the hidden units are computed.
void prefetch_outputs(const LeafForward& leaf, std::span<const std::int32_t> rows, const float* residual) {
  for (const Index row : rows)
    for (Index col = 0; col < leaf.out; col += kUnitLanes) {
      __builtin_prefetch(leaf.y + row * leaf.out + col, 1);
      if (residual) __builtin_prefetch(residual + row * leaf.out + col);
    }
}

// Units and columns are the outer loops: their weights stay in the first-level cache for all rows.
void visit_rows(const LeafForward& leaf, std::span<const std::int32_t> rows, const float* residual, float* hidden) {
  prefetch_outputs(leaf, rows, residual);
  const Index num_rows = static_cast<Index>(rows.size());
  const auto units = [&]<int kUnits>(Index unit) {
    for_groups(num_rows, [&]<int kRows>(Index r) {
      hidden_units<kRows, kUnits>(leaf, &rows[r], unit, hidden + r * leaf.leaf_width);
    });
  };
  Index unit = 0;
  for (; unit + kMostUnits <= leaf.leaf_width; unit += kMostUnits) units.template operator()<kMostUnits>(unit);
  for (; unit < leaf.leaf_width; ++unit) units.template operator()<1>(unit);

  const auto columns = [&]<int kVectors>(Index col, Index count) {
    for_groups(num_rows, [&]<int kRows>(Index r) {
      outputs<kRows, kVectors>(leaf, &rows[r], residual, col, count, hidden + r * leaf.leaf_width);
    });
  };
  constexpr Index kWide = kMostUnits * kUnitLanes;
  Index col = 0;
  for (; col + kWide <= leaf.out; col += kWide) columns.template operator()<kMostUnits>(col, kWide);
  for (; col < leaf.out; col += kUnitLanes) columns.template operator()<1>(col, std::min(kUnitLanes, leaf.out - col));
}

}  // namespace

void visit_leaf(const LeafForward& leaf, std::span<const std::int32_t> rows, const float* residual) {
  // Their x takes half the first-level cache.
  constexpr Index kFloats = 4 << 10;
  const std::size_t together =
      static_cast<std::size_t>(std::clamp<Index>(kFloats / leaf.width / kMostRows * kMostRows, kMostRows, 32));
  thread_local Scratch<float> scratch;
  float* hidden = scratch.get(static_cast<Index>(together) * leaf.leaf_width);
  for (; !rows.empty(); rows = rows.subspan(std::min(together, rows.size())))
    visit_rows(leaf, rows.first(std::min(together, rows.size())), residual, hidden);
}

}  // namespace switchyard::kernels::cpu
