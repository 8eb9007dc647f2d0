// Products of a few rows with a few others, along the rows: sum over i of x[i] w[i], one chain of vectors for each.
// What is missing from the last vector counts as zeros.
#pragma once

#include "kernels/cpu/gemm_units.hpp"

namespace switchyard::kernels::cpu {

typedef float FourFloats __attribute__((vector_size(4 * sizeof(float))));
typedef FourFloats FourFloatsAnywhere __attribute__((may_alias, aligned(sizeof(float))));

inline FourFloats load_four(const float* from) { return *reinterpret_cast<const FourFloatsAnywhere*>(from); }
inline void store_four(float* to, const FourFloats& x) { *reinterpret_cast<FourFloatsAnywhere*>(to) = x; }

#ifdef __AVX512F__
// Every four lanes: one sum of each of a, b, c and d.
inline FloatLanes quarter_sums(const FloatLanes& a, const FloatLanes& b, const FloatLanes& c, const FloatLanes& d) {
  constexpr Units kLow = {0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29},
                  kLowPairs = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29};
  const auto add_lanes = [](const FloatLanes& first, const FloatLanes& second, const Units& low) {
    return __builtin_shuffle(first, second, low) + __builtin_shuffle(first, second, low + 2);
  };
  return add_lanes(add_lanes(a, b, kLow), add_lanes(c, d, kLow), kLowPairs);
}

// The sums over the lanes of 16 vectors; the same bits as four times sums_of().
inline FloatLanes sums_of(const FloatLanes (&v)[16]) {
  constexpr Units kFirst = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
                  kEven = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
  const auto add_quarters = [](const FloatLanes& first, const FloatLanes& second, const Units& which, unsigned other) {
    return __builtin_shuffle(first, second, which) + __builtin_shuffle(first, second, which + other);
  };
  const FloatLanes q0 = quarter_sums(v[0], v[1], v[2], v[3]), q1 = quarter_sums(v[4], v[5], v[6], v[7]),
                   q2 = quarter_sums(v[8], v[9], v[10], v[11]), q3 = quarter_sums(v[12], v[13], v[14], v[15]);
  return add_quarters(add_quarters(q0, q1, kFirst, 8), add_quarters(q2, q3, kFirst, 8), kEven, 4);
}
#endif

// The sum over the lanes of each; the same bits in whichever place.
inline FourFloats sums_of(const FloatLanes& a, const FloatLanes& b, const FloatLanes& c, const FloatLanes& d) {
#ifdef __AVX512F__
  constexpr Units kSwapHalves = {8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7};
  const FloatLanes fours = quarter_sums(a, b, c, d);
  const FloatLanes eights = fours + __builtin_shuffle(fours, kSwapHalves);
  return FourFloats{eights[0], eights[1], eights[2], eights[3]} +
         FourFloats{eights[4], eights[5], eights[6], eights[7]};
#else
  FourFloats sums{};
  for (int lane = 0; lane < kUnitLanes; ++lane) sums += FourFloats{a[lane], b[lane], c[lane], d[lane]};
  return sums;
#endif
}

// GCC would load a value that it multiplies several times once for each of them. Without AVX no register holds one.
inline void keep_in_register([[maybe_unused]] FloatLanes& value) {
#ifdef __AVX512F__
  asm("" : "+v"(value));
#elif defined(__AVX__)
  asm("" : "+x"(value));
#endif
}

// The lane sums of `count` vectors.
template <int kCount>
inline void store_sums(const FloatLanes (&vectors)[kCount], float* to) {
#ifdef __AVX512F__
  if constexpr (kCount == 16) return store_floats(to, sums_of(vectors));
#endif
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
[[gnu::always_inline]] inline void for_vectors(Index width, const Body& body) {
  Index i = 0;
  for (; i + kUnitLanes <= width; i += kUnitLanes) body(i, [](const float* from) { return load_floats(from); });
  if (i < width) body(i, [count = width - i](const float* from) { return load_floats(from, count); });
}

}  // namespace switchyard::kernels::cpu
