// Writing operands of products rounded: whole fours and eights of a row, since rows are a multiple of eight elements
// apart and what is beyond their columns is not read.
#pragma once

#include "kernels/api/operand.hpp"
#include "kernels/cuda/fours.cuh"

namespace switchyard::kernels::cuda {

// The nearest bf16, ties to even; NaN stays NaN.
__device__ inline unsigned bf16_bits(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return (bits >> 16) | 0x40u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__device__ inline void write_rounded(Bf16* to, float x) { to->bits = static_cast<std::uint16_t>(bf16_bits(x)); }

// to: a multiple of 4 elements from the row's beginning.
__device__ inline void write_rounded(Bf16* to, const float4& x) {
  *reinterpret_cast<uint2*>(to) =
      make_uint2(bf16_bits(x.x) | bf16_bits(x.y) << 16, bf16_bits(x.z) | bf16_bits(x.w) << 16);
}
__device__ inline void write_rounded(Bf16* to, const Four& x) {
  write_rounded(to, make_float4(x.at[0], x.at[1], x.at[2], x.at[3]));
}

// to: a multiple of 8 elements from the row's beginning.
__device__ inline void write_rounded(Bf16* to, const Eight& x) {
  const auto two = [&](int i) { return bf16_bits(x.at[i]) | bf16_bits(x.at[i + 1]) << 16; };
  *reinterpret_cast<uint4*>(to) = make_uint4(two(0), two(2), two(4), two(6));
}

}  // namespace switchyard::kernels::cuda
