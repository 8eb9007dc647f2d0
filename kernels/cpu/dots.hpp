// Products of a few rows with a few others, along the rows: sum over i of x[i] w[i], one chain of vectors for each.
// What is missing from the last vector counts as zeros.
#pragma once

#include "kernels/cpu/gemm_units.hpp"

namespace switchyard::kernels::cpu {

typedef float FourFloats __attribute__((vector_size(4 * sizeof(float))));

// The sum over the lanes of each; the same bits in whichever place.
inline FourFloats sums_of(const FloatLanes& a, const FloatLanes& b, const FloatLanes& c, const FloatLanes& d) {
#ifdef __AVX512F__
  constexpr Units kLow = {0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29},
                  kLowPairs = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
                  kSwapHalves = {8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7};
  const auto add_lanes = [](const FloatLanes& first, const FloatLanes& second, const Units& low) {
    return __builtin_shuffle(first, second, low) + __builtin_shuffle(first, second, low + 2);
  };
  // Every four lanes: one of each of a, b, c and d.
  const FloatLanes fours = add_lanes(add_lanes(a, b, kLow), add_lanes(c, d, kLow), kLowPairs);
  const FloatLanes eights = fours + __builtin_shuffle(fours, kSwapHalves);
  return FourFloats{eights[0], eights[1], eights[2], eights[3]} +
         FourFloats{eights[4], eights[5], eights[6], eights[7]};
#else
  FourFloats sums{};
  for (int lane = 0; lane < kUnitLanes; ++lane) sums += FourFloats{a[lane], b[lane], c[lane], d[lane]};
  return sums;
#endif
}

// GCC would load a value that it multiplies several times once for each of them.
inline void keep_in_register(FloatLanes& value) {
#ifdef __AVX512F__
  asm("" : "+v"(value));
#else
  asm("" : "+x"(value));
#endif
}

// The lane sums of `count` vectors.
template <int kCount>
inline void store_sums(const FloatLanes (&vectors)[kCount], float* to) {
  const auto at = [&](int i) { return i < kCount ? vectors[i] : FloatLanes{}; };
#pragma GCC unroll 16
  for (int i = 0; i < kCount; i += 4) {
    const FourFloats sums = sums_of(at(i), at(i + 1), at(i + 2), at(i + 3));
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      if (i + j < kCount) to[i + j] = sums[j];
  }
}

// Calls body(i, at), where at(pointer) is the vector that begins there, for each vector of a row of `width` floats.
template <typename Body>
inline void for_vectors(Index width, const Body& body) {
  Index i = 0;
  for (; i + kUnitLanes <= width; i += kUnitLanes) body(i, [](const float* from) { return load_floats(from); });
  if (i < width) body(i, [count = width - i](const float* from) { return load_floats(from, count); });
}

}  // namespace switchyard::kernels::cpu
