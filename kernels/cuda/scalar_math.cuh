// exp and what is made of it, as kernels/cpu/vector_math.hpp defines them: 0 where the result would be subnormal.
#pragma once

#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

__device__ inline float exp_or_zero(float x) { return x < -87.3f ? 0.0f : expf(x); }

// 1 / (1 + exp(-x))
__device__ inline float sigmoid(float x) {
  const float e = exp_or_zero(-fabsf(x));
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

// ln(1 + exp(x))
__device__ inline float softplus(float x) { return (x > 0 ? x : 0.0f) + log1pf(exp_or_zero(-fabsf(x))); }

// exp(-u^2 / 2) / sqrt(2 pi)
__device__ inline float normal_density(float u) { return exp_or_zero(-0.5f * (u * u)) * 0.398942280f; }

}  // namespace switchyard::kernels::cuda
