// Rows in fours: a lane of the warp that has a row takes columns 4 lane .. 4 lane + 3 of every 128, whether or not the
// row's place and width allow it to load them at once. So no sum depends on where an array lies.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

constexpr int kFoursOfWarp = 4 * kWarpSize;

// What is beyond the `left` columns that there are counts as zeros.
template <bool kInFours>
__device__ inline float4 load_four(const float* from, int left) {
  if constexpr (kInFours) return *reinterpret_cast<const float4*>(from);
  return make_float4(from[0], left > 1 ? from[1] : 0.0f, left > 2 ? from[2] : 0.0f, left > 3 ? from[3] : 0.0f);
}

template <bool kInFours>
__device__ inline float4 load_four(const Operand& x, Index row, int cols, int col) {
  const Four four = read_four<kInFours>(x, row, cols, col);
  return make_float4(four.at[0], four.at[1], four.at[2], four.at[3]);
}

template <bool kInFours>
__device__ inline void store_four(float* to, const float4& x, int left) {
  if constexpr (kInFours) {
    store_whole(to, x);
  } else {
    to[0] = x.x;
    if (left > 1) to[1] = x.y;
    if (left > 2) to[2] = x.z;
    if (left > 3) to[3] = x.w;
  }
}

__device__ inline float4 product(const float4& a, const float4& b) {
  return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}
__device__ inline float4 product(float a, const float4& b) { return product(make_float4(a, a, a, a), b); }
__device__ inline void add_product(float4& sum, const float4& a, const float4& b) {
  sum.x = fmaf(a.x, b.x, sum.x);
  sum.y = fmaf(a.y, b.y, sum.y);
  sum.z = fmaf(a.z, b.z, sum.z);
  sum.w = fmaf(a.w, b.w, sum.w);
}
__device__ inline void add_product(float4& sum, float a, const float4& b) {
  add_product(sum, make_float4(a, a, a, a), b);
}
__device__ inline float add_dot(float sum, const float4& a, const float4& b) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// Of columns col .. col + 3, col being a multiple of 4.
__device__ inline float4 four_factors(const DropoutFactors& dropout, Index row, int col) {
  if (dropout.threshold == 0) return make_float4(1, 1, 1, 1);
  const auto words = dropout.words(row, col / 8);
  const bool second_half = col % 8 != 0;
  const std::uint32_t two[] = {second_half ? words[2] : words[0], second_half ? words[3] : words[1]};
  const auto factor = [&](std::uint32_t bits) { return bits >= dropout.threshold ? dropout.scale : 0.0f; };
  return make_float4(factor(two[0] & 0xffffu), factor(two[0] >> 16), factor(two[1] & 0xffffu), factor(two[1] >> 16));
}

// A warp for each row: for (row = row_of_warp(); row < rows; row += warps_together())
inline LaunchShape warp_for_each(Index rows) { return grid_for(rows * kWarpSize); }
__device__ inline Index row_of_warp() { return global_thread() / kWarpSize; }
__device__ inline Index warps_together() { return num_threads() / kWarpSize; }

}  // namespace switchyard::kernels::cuda
