// exp, and the Gaussian's distribution function, without branches or calls, so that loops over them vectorise.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::kernels::cpu {

// exp(x) to about 1e-7 relative; 0 below -87.3 (no subnormal results), infinity above 88.37; NaN stays NaN.
inline float vector_exp(float x) {
  constexpr float kRounder = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  const float clamped_below = x < -87.3f ? -87.3f : x;
  const float clamped = clamped_below > 88.5f ? 88.5f : clamped_below;
  const float rounded = clamped * 1.44269504f + kRounder;
  const float n = rounded - kRounder;
  // ln 2 in two parts, the first one short enough for n times it to be exact.
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  // exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2)/2, coefficients of Cephes' expf.
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float exp_r = p * (r * r) + r + 1.0f;
  const std::uint32_t exponent = (std::bit_cast<std::uint32_t>(rounded) + 127u)
                                 << 23;  // of 2^n: the rounder shifts out
  const float result = exp_r * std::bit_cast<float>(exponent);
  return x < -87.3f ? 0.0f : result;
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
