// What kernels share: places of threads, sums in a fixed order, random factors.
#pragma once

#include "core/random.hpp"
#include "core/types.hpp"
#include "kernels/api/dropout.hpp"
#include "kernels/cuda/launch.hpp"

namespace switchyard::kernels::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;
// Of an H100 or H200. Rows whose sums are made by row blocks are cut for as many, on any GPU: bits rest on it.
constexpr Index kMultiprocessors = 132;

__device__ inline Index global_thread() { return static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline Index num_threads() { return static_cast<Index>(gridDim.x) * blockDim.x; }
__device__ inline int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ inline int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }

// Blocks for a loop `for (i = global_thread(); i < count; i += num_threads())`: by the count alone.
inline LaunchShape grid_for(Index count, int threads = 256) {
  constexpr Index kMostBlocks = 4096;
  const Index blocks = ceil_div(count, threads);
  return {.blocks = blocks < kMostBlocks ? blocks : kMostBlocks, .threads = threads};
}

// The dynamic shared memory of the block.
template <typename T>
__device__ inline T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
#else
  return static_cast<T*>(emulated::dynamic_shared());
#endif
}

// Over the 32 lanes by a butterfly: every lane gets the same bits, since a + b = b + a. All lanes take part.
template <typename T>
__device__ inline T warp_sum(T x) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(kWholeWarp, x, mask);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const float other = __shfl_xor_sync(kWholeWarp, x, mask);
    x = other > x || other != other ? other : x;  // NaN stays
  }
  return x;
}

// Over the block, every thread taking part and getting the same bits. kThreads: the block's size, a multiple of 32.
template <int kThreads, typename T>
__device__ inline T block_sum(T x) {
  __shared__ T sums[kThreads / kWarpSize];
  x = warp_sum(x);
  __syncthreads();  // an earlier call's sums have been read
  if (lane() == 0) sums[warp()] = x;
  __syncthreads();
  T total = 0;
  for (int w = 0; w < kThreads / kWarpSize; ++w) total += sums[w];
  return total;
}

// The same of two numbers, with half of the waiting.
template <int kThreads>
__device__ inline float2 block_sums(float2 x) {
  __shared__ float2 sums[kThreads / kWarpSize];
  x = make_float2(warp_sum(x.x), warp_sum(x.y));
  __syncthreads();  // an earlier call's sums have been read
  if (lane() == 0) sums[warp()] = x;
  __syncthreads();
  float2 total = make_float2(0, 0);
  for (int w = 0; w < kThreads / kWarpSize; ++w) {
    total.x += sums[w].x;
    total.y += sums[w].y;
  }
  return total;
}

// Dropout as a kernel takes it: plain values, computed on the host.
struct DropoutFactors {
  std::uint32_t threshold = 0;  // 0: every factor is 1
  float scale = 1;
  RandomKey key{};
  const std::int32_t* row_ids = nullptr;
  std::uint32_t first_row = 0;

  __device__ std::uint32_t philox_row(Index row) const {
    return row_ids ? static_cast<std::uint32_t>(row_ids[row]) : first_row + static_cast<std::uint32_t>(row);
  }
  __device__ DropoutFactors with_step_read() const {
    DropoutFactors read = *this;
    read.key = switchyard::with_step_read(key);
    return read;
  }
  // The four words of columns block * 8 .. block * 8 + 7.
  __device__ std::array<std::uint32_t, 4> words(Index row, Index block) const {
    return random_words(key, philox_row(row), static_cast<std::uint32_t>(block));
  }
  __device__ bool keeps(const std::array<std::uint32_t, 4>& words, Index col) const {
    const std::uint32_t word = words[static_cast<std::size_t>(col % 8 / 2)];
    const std::uint32_t bits = col % 2 == 0 ? word & 0xffffu : word >> 16;
    return bits >= threshold;
  }
  __device__ float factor(const std::array<std::uint32_t, 4>& words, Index col) const {
    return keeps(words, col) ? scale : 0.0f;
  }
  __device__ float factor(Index row, Index col) const {
    return threshold == 0 ? 1.0f : factor(words(row, col / 8), col);
  }
};

inline DropoutFactors factors_of(const Dropout& dropout) {
  return {dropout.threshold(), dropout.scale(), dropout.key, dropout.row_ids, dropout.first_row};
}

}  // namespace switchyard::kernels::cuda
