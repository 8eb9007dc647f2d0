// exp, ln and what is made of them, without branches or calls, so that loops over them vectorise.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/vector.hpp"

namespace switchyard::kernels::cpu {

inline std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline UnsignedVector bits_of(const Vector& x) { return (UnsignedVector)x; }
inline Vector from_bits(const UnsignedVector& bits) { return (Vector)bits; }

// exp(x) to about 1e-7 relative for x < 88; 0 below -87.3 (no subnormal results); NaN stays NaN. For a float or a
// Vector.
template <typename Float>
inline Float vector_exp(const Float& x) {
  constexpr float kRounder = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  const Float rounded = x * 1.44269504f + kRounder;
  const Float n = rounded - kRounder;
  // ln 2 in two parts, the first one short enough for n times it to be exact.
  const Float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  // exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2)/2, coefficients of Cephes' expf.
  Float p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Float exp_r = p * (r * r) + r + 1.0f;
  const Float power = from_bits((bits_of(rounded) + 127u) << 23);  // 2^n; the rounder's own bits are shifted out
  const Float result = exp_r * power;
  return x < -87.3f ? Float{} : result;  // what the lines above make of such x is of no account
}

// ln((1 + s) / (1 - s)) to about 1e-7 relative for |s| <= 1/3: its series.
template <typename Float>
inline Float two_atanh(const Float& s) {
  const Float q = s * s;
  Float p = q * (2.0f / 13) + (2.0f / 11);
  p = p * q + (2.0f / 9);
  p = p * q + (2.0f / 7);
  p = p * q + (2.0f / 5);
  p = p * q + (2.0f / 3);
  return p * q * s + 2.0f * s;
}

// ln(x) to about 1e-7 (relative near 1) for positive x that are not subnormal; finite, and of no account, for all else.
template <typename Float>
inline Float vector_log(const Float& x) {
  constexpr std::uint32_t kSqrtHalf = 0x3f3504f3, kOne = 0x3f800000;
  // x = 2^n m, m in [sqrt(1/2), sqrt(2)): n + 127 and m's place above sqrt(1/2) stand side by side.
  const auto shifted = bits_of(x) + (kOne - kSqrtHalf);
  const Float n = from_bits((shifted >> 23 & 0xffu) | 0x4b000000u) - (8388608.0f + 127.0f);
  const Float m = from_bits((shifted & 0x7fffffu) + kSqrtHalf);
  return n * 0.693359375f + (two_atanh((m - 1.0f) / (m + 1.0f)) + n * -2.12194440e-4f);
}

// ln(1 + exp(x)) to about 2e-7 relative; 0 below -87.3
inline float softplus(float x) {
  const float e = vector_exp(-std::fabs(x));
  return (x > 0 ? x : 0.0f) + two_atanh(e / (2.0f + e));
}

// 1 / (1 + exp(-x)) to about 2e-7 relative; 0 below -87.3
inline float sigmoid(float x) {
  const float e = vector_exp(-std::fabs(x));
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

// cos(2 pi u) to about 2e-7 for u in [0, 1): the sine's series for the angle beyond the nearest of 1/4 and 3/4 turns.
inline float cos_of_turns(float u) {
  const float x = 6.28318531f * (std::fabs(u - 0.5f) - 0.25f), q = x * x;
  float p = q * -2.50521084e-8f + 2.75573192e-6f;
  p = p * q - 1.98412698e-4f;
  p = p * q + 8.33333333e-3f;
  p = p * q - 1.66666667e-1f;
  return p * q * x + x;
}

struct Gaussian {
  float cdf;  // (1 + erf(u / sqrt 2)) / 2
  float pdf;  // exp(-u^2 / 2) / sqrt(2 pi)
};

// Both to about 1e-6 relative, also far into the lower tail (to 3e-7 a^2 beyond, where exp(-a^2 / 2) rounds a^2).
// With a = |u| and t = 1 / (1 + 0.28 a), the upper tail is exp(-a^2 / 2) t p(t), p of degree 8 fitted at Chebyshev
// points of [0.0005, 1] to 2e-7 relative.
inline Gaussian gaussian(float u) {
  const float a = std::fabs(u);
  const float t = 1.0f / (1.0f + 0.28f * a);
  const float exp_term = vector_exp(-0.5f * (a * a));
  float p = 2.615570864e-02f;
  p = p * t - 9.915989037e-02f;
  p = p * t + 1.011847805e-01f;
  p = p * t - 1.361269839e-02f;
  p = p * t + 7.601802500e-02f;
  p = p * t + 8.283403700e-02f;
  p = p * t + 1.031808437e-01f;
  p = p * t + 1.116953561e-01f;
  p = p * t + 1.117038931e-01f;
  const float tail = exp_term * (p * t);
  return {u < 0 ? tail : 1.0f - tail, exp_term * 0.398942280f};
}

}  // namespace switchyard::kernels::cpu
