// Rows of as many columns as there are experts, often few: kGroup lanes, a power of two up to a warp, share a row, lane
// l of them taking columns l, l + kGroup, .. The group follows from the number of columns alone, so does every sum.
#pragma once

#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

// body.operator()<kGroup>() with the group for rows of `cols` columns
template <typename Body>
void with_group_for(Index cols, const Body& body) {
  if (cols <= 1) return body.template operator()<1>();
  if (cols <= 2) return body.template operator()<2>();
  if (cols <= 4) return body.template operator()<4>();
  if (cols <= 8) return body.template operator()<8>();
  if (cols <= 16) return body.template operator()<16>();
  return body.template operator()<32>();
}

template <int kGroup>
LaunchShape groups_for_each(Index rows) {
  return grid_for(ceil_div(rows * kGroup, kWarpSize) * kWarpSize);
}

// Calls body(row, lane of the group, real) for all rows. A warp's groups keep together, as barriers and shuffles want
// it: one that has no row left gets the last row once more, is not `real`, and must not write.
template <int kGroup, typename Body>
__device__ void for_grouped_rows(Index rows, const Body& body) {
  for (Index first = global_thread() / kWarpSize * (kWarpSize / kGroup); first < rows;
       first += num_threads() / kGroup) {
    const Index row = first + lane() / kGroup;
    body(row < rows ? row : rows - 1, lane() % kGroup, row < rows);
  }
}

// Every lane of the group gets the same bits.
template <int kGroup>
__device__ float group_sum(float x) {
  for (int mask = kGroup / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(kWholeWarp, x, mask);
  return x;
}
// The same where no lane has NaN, which may get lost.
template <int kGroup>
__device__ float group_max(float x) {
  for (int mask = kGroup / 2; mask > 0; mask /= 2) {
    const float other = __shfl_xor_sync(kWholeWarp, x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// An integer that orders as the number does: NaN below all others, the two zeros equal.
__device__ inline std::uint32_t order_of(float x) {
  constexpr std::uint32_t kSign = 0x80000000u;
  const std::uint32_t bits = __float_as_uint(x + 0.0f);
  const std::uint32_t order = bits & kSign ? ~bits : bits | kSign;
  return x == x ? order : 0u;
}

// Of a row's elements no two have the same rank: it orders by key, the lower index above where equal. Never 0.
using Rank = std::uint64_t;
constexpr Rank kAboveAll = ~Rank{0};
__device__ inline Rank rank_of(float key, int index) {
  return Rank{order_of(key)} << 32 | (0xffffffffu - static_cast<std::uint32_t>(index));
}
__device__ inline int index_of(Rank rank) { return static_cast<int>(0xffffffffu - static_cast<std::uint32_t>(rank)); }

template <int kGroup>
__device__ Rank group_largest(Rank rank) {
  for (int mask = kGroup / 2; mask > 0; mask /= 2) {
    const Rank other = __shfl_xor_sync(kWholeWarp, rank, mask);
    rank = other > rank ? other : rank;
  }
  return rank;
}

// The largest rank below `above` of elements [first, end): begin with kAboveAll, go on with what was found.
template <int kGroup, typename Key>
__device__ Rank next_largest(int first, int end, int lane_of_group, Rank above, const Key& key) {
  Rank largest = 0;
  for (int i = first + lane_of_group; i < end; i += kGroup) {
    const Rank rank = rank_of(key(i), i);
    if (rank < above && rank > largest) largest = rank;
  }
  return group_largest<kGroup>(largest);
}

}  // namespace switchyard::kernels::cuda
