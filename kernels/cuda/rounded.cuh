// Reading and writing rows as products do, rounded: whole fours and eights of a row at a time, since rows are a
// multiple of eight elements apart, and what is beyond their columns is of no account to whoever reads them.
#pragma once

#include "kernels/api/operand.hpp"
#include "kernels/cuda/fours.cuh"

namespace switchyard::kernels::cuda {

// Two neighbours, each the nearest bf16, ties to even, the first in the lower half; NaN stays NaN.
__device__ inline unsigned rounded_pair(float low, float high) {
#ifdef __CUDACC__
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return emulated::bf16x2(low, high);
#endif
}
__device__ inline unsigned bf16_bits(float x) { return rounded_pair(x, 0); }

__device__ inline void write_rounded(Bf16* to, float x) { to->bits = static_cast<std::uint16_t>(bf16_bits(x)); }

// to: a multiple of 4 elements from the row's beginning.
__device__ inline void write_rounded(Bf16* to, const float4& x) {
  store_whole(to, make_uint2(rounded_pair(x.x, x.y), rounded_pair(x.z, x.w)));
}
__device__ inline void write_rounded(Bf16* to, const Four& x) {
  write_rounded(to, make_float4(x.at[0], x.at[1], x.at[2], x.at[3]));
}

// to: a multiple of 8 elements from the row's beginning.
__device__ inline void write_rounded(Bf16* to, const Eight& x) {
  store_whole(to, make_uint4(rounded_pair(x.at[0], x.at[1]), rounded_pair(x.at[2], x.at[3]),
                             rounded_pair(x.at[4], x.at[5]), rounded_pair(x.at[6], x.at[7])));
}

__device__ inline float first_of_pair(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ inline float second_of_pair(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

// from[0 .. count - 1], zeros beyond; from: a multiple of 4 elements from the row's beginning.
template <bool kAligned>
__device__ inline Four read_four(const Bf16* from, int count) {
  if (count <= 0) return {};
  const uint2 pairs = *reinterpret_cast<const uint2*>(from);
  Four four{{first_of_pair(pairs.x), second_of_pair(pairs.x), first_of_pair(pairs.y), second_of_pair(pairs.y)}};
  for (int i = 0; i < 4; ++i)
    if (!is_inside<kAligned>(i, count)) four.at[i] = 0;
  return four;
}
// Columns col .. col + 3, col being a multiple of 4, of a row of `cols`; zeros from `cols` on.
template <bool kAligned>
__device__ inline Four read_four(const Operand& x, Index row, int cols, int col) {
  if (x.rounded) return read_four<kAligned>(x.rounded + row * rounded_cols(cols) + col, cols - col);
  return read_four<kAligned>(x.values + row * cols + col, cols - col);
}

// The octet's columns of a row; anything in those that are beyond it.
template <typename Octet>
__device__ inline Eight load(const Operand& x, Index row, Index cols, const Octet& octet) {
  if (!x.rounded) return octet.load(x.values + row * cols);
  const uint4 pairs = *reinterpret_cast<const uint4*>(x.rounded + row * rounded_cols(cols) + octet.first);
  return {{first_of_pair(pairs.x), second_of_pair(pairs.x), first_of_pair(pairs.y), second_of_pair(pairs.y),
           first_of_pair(pairs.z), second_of_pair(pairs.z), first_of_pair(pairs.w), second_of_pair(pairs.w)}};
}
template <typename Octet>
__device__ inline void store(const NewOperand& y, Index row, Index cols, const Octet& octet, const Eight& x) {
  if (y.values) octet.store(y.values + row * cols, x);
  if (y.rounded) write_rounded(y.rounded + row * rounded_cols(cols) + octet.first, x);
}

}  // namespace switchyard::kernels::cuda
