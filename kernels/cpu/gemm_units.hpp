// What the packed operands of a product consist of: units of 32 bits along the depth k. A unit is one float, or in bf16
// the two values at depths 2i (low half) and 2i + 1 (high half), so that both kinds move through the same code.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <bit>
#include <cstdint>
#include <cstring>

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

#ifdef __AVX512F__
constexpr Index kUnitLanes = 16;
#else
constexpr Index kUnitLanes = 8;
#endif

typedef float FloatLanes __attribute__((vector_size(sizeof(float) * kUnitLanes)));
typedef std::uint32_t Units __attribute__((vector_size(sizeof(float) * kUnitLanes)));
typedef FloatLanes FloatLanesAnywhere __attribute__((may_alias, aligned(sizeof(float))));

inline FloatLanes load_floats(const float* from) { return *reinterpret_cast<const FloatLanesAnywhere*>(from); }
inline void store_floats(float* to, const FloatLanes& x) { *reinterpret_cast<FloatLanesAnywhere*>(to) = x; }

// The first `count` floats, zeros behind them; count may be beyond kUnitLanes, or 0 or less.
inline FloatLanes load_floats(const float* from, Index count) {
  if (count >= kUnitLanes) return load_floats(from);
  if (count <= 0) return FloatLanes{};
#ifdef __AVX512F__
  return (FloatLanes)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#else
  FloatLanes x{};
  std::memcpy(&x, from, static_cast<std::size_t>(count) * sizeof(float));
  return x;
#endif
}

// The first `count` lanes alone, of 32 bits each; count may be beyond kUnitLanes.
inline void store_some(void* to, const Units& x, Index count) {
#ifdef __AVX512F__
  if (count >= kUnitLanes)
    _mm512_storeu_si512(to, (__m512i)x);
  else
    _mm512_mask_storeu_epi32(to, static_cast<__mmask16>((1u << count) - 1), (__m512i)x);
#else
  std::memcpy(to, &x, static_cast<std::size_t>(count < kUnitLanes ? count : kUnitLanes) * sizeof x[0]);
#endif
}

// The nearest bf16 to each float, ties to even, in the low half. NaN stays NaN.
inline Units bf16_bits(const FloatLanes& x) {
#ifdef __AVX512BF16__
  return (Units)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
  const Units bits = (Units)x;
  const Units rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return x == x ? rounded : (bits >> 16) | 0x40u;
#endif
}

// Of each kind: load_along packs consecutive depths, `count` of them at most; load_across packs `count` neighbours of
// one depth, the next depth lying `stride` behind where num_depths > 1. What is not there is zero.
struct Fp32Unit {
  static constexpr Index kDepth = 1;  // values of the operand in one unit

  static Units load_along(const float* from, Index count) { return (Units)load_floats(from, count); }
  static Units load_across(const float* from, Index, Index count, Index) { return (Units)load_floats(from, count); }

  static void multiply_add(FloatLanes& sum, std::uint32_t a, const Units& b) {
    sum += std::bit_cast<float>(a) * (FloatLanes)b;
  }
};

struct Bf16Unit {
  static constexpr Index kDepth = 2;

  static Units load_along(const float* from, Index count) {
    const FloatLanes first = load_floats(from, count), second = load_floats(from + kUnitLanes, count - kUnitLanes);
#ifdef __AVX512BF16__
    return (Units)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
#elif defined(__AVX512F__)
    constexpr Units kEven = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    return __builtin_shuffle(bf16_bits(first), bf16_bits(second), kEven) |
           (__builtin_shuffle(bf16_bits(first), bf16_bits(second), kEven + 1) << 16);
#else
    constexpr Units kEven = {0, 2, 4, 6, 8, 10, 12, 14};
    return __builtin_shuffle(bf16_bits(first), bf16_bits(second), kEven) |
           (__builtin_shuffle(bf16_bits(first), bf16_bits(second), kEven + 1) << 16);
#endif
  }
  static Units load_across(const float* from, Index stride, Index count, Index num_depths) {
    const Units first = bf16_bits(load_floats(from, count));
    return num_depths > 1 ? first | (bf16_bits(load_floats(from + stride, count)) << 16) : first;
  }

  static void multiply_add(FloatLanes& sum, std::uint32_t a, const Units& b) {
#ifdef __AVX512BF16__
    sum = (FloatLanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(Units{} + a), (__m512bh)b);
#else
    const Units a_units = Units{} + a;
    sum += (FloatLanes)(a_units & 0xffff0000u) * (FloatLanes)(b & 0xffff0000u);
    sum += (FloatLanes)(a_units << 16) * (FloatLanes)(b << 16);
#endif
  }
};

}  // namespace switchyard::kernels::cpu
