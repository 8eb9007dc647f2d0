// Products of a few rows with a few others, along the rows: sum over i of x[i] w[i], one chain of vectors for each.
// What is missing from the last vector counts as zeros.
#pragma once

#include "kernels/cpu/gemm_units.hpp"

namespace switchyard::kernels::cpu {

typedef float FourFloats __attribute__((vector_size(4 * sizeof(float))));

// The sum over the lanes of each; the same bits in whichever place.
inline FourFloats sums_of(const FloatLanes& a, const FloatLanes& b, const FloatLanes& c, const FloatLanes& d) {
#ifdef __AVX512F__
  const auto pairs = [](const FloatLanes& first, const FloatLanes& second) {
    return (FloatLanes)_mm512_unpacklo_ps((__m512)first, (__m512)second) +
           (FloatLanes)_mm512_unpackhi_ps((__m512)first, (__m512)second);
  };
  const __m512d ab = _mm512_castps_pd((__m512)pairs(a, b)), cd = _mm512_castps_pd((__m512)pairs(c, d));
  const FloatLanes fours = (FloatLanes)_mm512_unpacklo_pd(ab, cd) + (FloatLanes)_mm512_unpackhi_pd(ab, cd);
  const __m512 halves = (__m512)(fours + (FloatLanes)_mm512_shuffle_f32x4((__m512)fours, (__m512)fours, 0x4e));
  return (FourFloats)_mm_add_ps(_mm512_castps512_ps128(halves), _mm512_extractf32x4_ps(halves, 1));
#else
  FourFloats sums{};
  for (int lane = 0; lane < kUnitLanes; ++lane) sums += FourFloats{a[lane], b[lane], c[lane], d[lane]};
  return sums;
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
