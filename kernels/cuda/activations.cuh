// The Gaussian error linear unit.
#pragma once

#include "kernels/api/activations.hpp"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

struct Gaussian {
  float cdf;  // (1 + erf(u / sqrt 2)) / 2
  float pdf;  // exp(-u^2 / 2) / sqrt(2 pi)
};

// As kernels/cpu/vector_math.hpp has it, to about 1e-6 relative, also far into the lower tail: with a = |u| and
// t = 1 / (1 + 0.28 a), the upper tail is exp(-a^2 / 2) t p(t).
__device__ inline Gaussian gaussian(float u) {
  const float a = fabsf(u);
  const float t = 1.0f / fmaf(0.28f, a, 1.0f);
  const float exp_term = expf(-0.5f * (a * a));
  float p = 2.615570864e-02f;
  p = fmaf(p, t, -9.915989037e-02f);
  p = fmaf(p, t, 1.011847805e-01f);
  p = fmaf(p, t, -1.361269839e-02f);
  p = fmaf(p, t, 7.601802500e-02f);
  p = fmaf(p, t, 8.283403700e-02f);
  p = fmaf(p, t, 1.031808437e-01f);
  p = fmaf(p, t, 1.116953561e-01f);
  p = fmaf(p, t, 1.117038931e-01f);
  const float cdf = u < 0 ? exp_term * (p * t) : fmaf(-exp_term, p * t, 1.0f);
  return {cdf, exp_term * 0.398942280f};
}

struct Gelu {
  __device__ static float value(float u) { return u * gaussian(u).cdf; }
  __device__ static float slope(float u) {
    const Gaussian g = gaussian(u);
    return fmaf(u, g.pdf, g.cdf);
  }
};

}  // namespace switchyard::kernels::cuda
