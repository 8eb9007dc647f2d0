// What attention in fp32 and its backward pass share. A block works on kTileRows tokens of one (sample, head), against
// kTileCols others at a time, so any number of tokens will do and no score leaves the chip. Its threads form 8 groups
// of 16 lanes: a group has four rows of the tile, and of each row a lane has every sixteenth column (lane, lane + 16,
// ...). A row's sums run over columns in an order that its number of columns alone decides.
#pragma once

#include "kernels/cuda/attention_head.cuh"

namespace switchyard::kernels::cuda {

constexpr int kTileThreads = 128, kTileRows = 32, kTileCols = 64;
constexpr int kGroupLanes = 16, kGroupRows = 4;
constexpr int kScoreStride = kTileCols + 4;  // of rows of scores in shared memory: groups meet different banks

// A head's padded size, kSize, is a template argument: 16, 32, 64 or 128. Rows of (tokens, kSize) arrays in shared
// memory are kSize + 4 apart: whole float4, and sixteen lanes that read sixteen rows meet different banks.
template <int kSize>
constexpr int kStride = kSize + 4;
template <int kSize>
constexpr int kLaneCols = kSize / kGroupLanes;  // of a row of kSize columns, in a lane

__device__ inline int group() { return static_cast<int>(threadIdx.x) / kGroupLanes; }
__device__ inline int group_lane() { return static_cast<int>(threadIdx.x) % kGroupLanes; }

// Over the 16 lanes of a group by a butterfly.
__device__ inline float group_sum(float x) {
  for (int mask = kGroupLanes / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(kWholeWarp, x, mask);
  return x;
}
__device__ inline float group_max(float x) {
  for (int mask = kGroupLanes / 2; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, mask));
  return x;
}

// The block's part: rows first_row .. of one (sample, head).
struct TilePlace {
  Index sample;
  int head, first_row, tile;
};
__device__ inline TilePlace tile_place(Index block, int heads, int num_tiles) {
  const Index row = block / num_tiles;  // (sample, head)
  const int tile = static_cast<int>(block - row * num_tiles);
  const Index sample = row / heads;
  return {sample, static_cast<int>(row - sample * heads), tile * kTileRows, tile};
}

// One head's rows of an array (samples, tokens, ...), as values factor * (x + bias).
struct HeadRows {
  const float* from;
  Index stride;
  const float* bias;  // null: zero
  float factor;
};

// to (num_rows, kStride) = rows first, first + 1, ...; zeros beyond the tokens and the head's size. Called by all
// threads of the block.
template <int kSize>
__device__ inline void load_rows(const HeadRows& rows, int first, int num_rows, int tokens, int size, float* to) {
  const int col = static_cast<int>(threadIdx.x) % kSize;
  const float bias = rows.bias && col < size ? rows.bias[col] : 0.0f;
  for (int r = static_cast<int>(threadIdx.x) / kSize; r < num_rows; r += kTileThreads / kSize) {
    const bool inside = first + r < tokens && col < size;
    to[r * kStride<kSize> + col] = inside ? rows.factor * (rows.from[(first + r) * rows.stride + col] + bias) : 0.0f;
  }
}

// products[r][c] = x row r of the thread's group times y row 16 c + lane, over `size` columns (rounded up to float4).
template <int kSize, int kCols>
__device__ inline void multiply_rows(const float* x, const float* y, int size, float (&products)[kGroupRows][kCols]) {
  for (int r = 0; r < kGroupRows; ++r)
    for (int c = 0; c < kCols; ++c) products[r][c] = 0;
  x += group() * kGroupRows * kStride<kSize>;
  y += group_lane() * kStride<kSize>;
#pragma unroll 1
  for (int d = 0; d < size; d += 4) {
    float4 a[kGroupRows];
    for (int r = 0; r < kGroupRows; ++r) a[r] = *reinterpret_cast<const float4*>(x + r * kStride<kSize> + d);
    for (int c = 0; c < kCols; ++c) {
      const float4 b = *reinterpret_cast<const float4*>(y + c * kGroupLanes * kStride<kSize> + d);
      for (int r = 0; r < kGroupRows; ++r) {
        products[r][c] = fmaf(a[r].x, b.x, products[r][c]);
        products[r][c] = fmaf(a[r].y, b.y, products[r][c]);
        products[r][c] = fmaf(a[r].z, b.z, products[r][c]);
        products[r][c] = fmaf(a[r].w, b.w, products[r][c]);
      }
    }
  }
}

// The column of a (.., kSize) array that is the lane's w-th: neighbours in one vector load.
template <int kSize>
__device__ inline int lane_col(int w) {
  constexpr int kVector = kLaneCols<kSize> < 4 ? kLaneCols<kSize> : 4;
  return w / kVector * kVector * kGroupLanes + group_lane() * kVector + w % kVector;
}

template <int kSize>
__device__ inline void load_lane_cols(const float* row, float (&values)[kLaneCols<kSize>]) {
  if constexpr (kSize == 16) {
    values[0] = row[lane_col<kSize>(0)];
  } else if constexpr (kSize == 32) {
    const float2 x = *reinterpret_cast<const float2*>(row + lane_col<kSize>(0));
    values[0] = x.x;
    values[1] = x.y;
  } else {
    for (int w = 0; w < kLaneCols<kSize>; w += 4) {
      const float4 x = *reinterpret_cast<const float4*>(row + lane_col<kSize>(w));
      values[w] = x.x;
      values[w + 1] = x.y;
      values[w + 2] = x.z;
      values[w + 3] = x.w;
    }
  }
}

// sums[r][w] += scores row r of the group times y, over the first num_rows (a multiple of 4) rows of y, in order.
template <int kSize>
__device__ inline void add_products(const float* scores, const float* y, int num_rows,
                                    float (&sums)[kGroupRows][kLaneCols<kSize>]) {
  scores += group() * kGroupRows * kScoreStride;
#pragma unroll 1
  for (int j = 0; j < num_rows; j += 4) {
    float4 s[kGroupRows];
    for (int r = 0; r < kGroupRows; ++r) s[r] = *reinterpret_cast<const float4*>(scores + r * kScoreStride + j);
    for (int i = 0; i < 4; ++i) {
      float values[kLaneCols<kSize>];
      load_lane_cols<kSize>(y + (j + i) * kStride<kSize>, values);
      for (int r = 0; r < kGroupRows; ++r) {
        const float score = i == 0 ? s[r].x : i == 1 ? s[r].y : i == 2 ? s[r].z : s[r].w;
        for (int w = 0; w < kLaneCols<kSize>; ++w) sums[r][w] = fmaf(score, values[w], sums[r][w]);
      }
    }
  }
}

// Calls body(std::integral_constant<int, n>) with the least n for which 16 n columns hold `cols` of them.
template <typename Body>
__device__ inline void with_cols(int cols, const Body& body) {
  if (cols > 3 * kGroupLanes)
    body(std::integral_constant<int, 4>());
  else if (cols > 2 * kGroupLanes)
    body(std::integral_constant<int, 3>());
  else if (cols > kGroupLanes)
    body(std::integral_constant<int, 2>());
  else
    body(std::integral_constant<int, 1>());
}

// What dropout keeps of a thread's scores: a bit for each, in place of a register.
template <int kCols>
struct Kept {
  unsigned bits = ~0u;
  __device__ float factor(float scale, int r, int c) const { return bits >> (r * kCols + c) & 1u ? scale : 0.0f; }
  __device__ void set(int r, int c, unsigned kept) { bits |= kept << (r * kCols + c); }
};

// Rows are queries from first_row on, columns keys from first_col on. Each of a group's lanes draws for some (row,
// block of eight keys); the others ask it.
template <int kCols>
__device__ inline Kept<kCols> kept_of_queries(const KeptKeys& keys, int first_row, int first_col) {
  Kept<kCols> kept;
  if (keys.dropout.threshold == 0) return kept;
  kept.bits = 0;
  for (int n = 0; n < (kCols + 1) / 2; ++n) {
    const int row = group_lane() % 4, block = n * 4 + group_lane() / 4;
    const unsigned drawn = keys.mask(first_row + group() * kGroupRows + row, first_col + block * 8);
    const int group_start = lane() / kGroupLanes * kGroupLanes;
    for (int c = 2 * n; c < 2 * n + 2 && c < kCols; ++c)
      for (int r = 0; r < kGroupRows; ++r) {
        const int from = (c % 2 * 2 + group_lane() / 8) * 4 + r;
        kept.set(r, c, __shfl_sync(kWholeWarp, drawn, group_start + from) >> (group_lane() % 8) & 1u);
      }
  }
  return kept;
}

// Rows are keys and columns are queries: a warp's eight rows are one block of eight keys.
template <int kCols>
__device__ inline Kept<kCols> kept_of_keys(const KeptKeys& keys, int first_row, int first_col) {
  Kept<kCols> kept;
  if (keys.dropout.threshold == 0) return kept;
  kept.bits = 0;
  for (int n = 0; n < (kCols + 1) / 2; ++n) {
    const unsigned drawn = keys.mask(first_col + n * kWarpSize + lane(), first_row + warp() * 2 * kGroupRows);
    for (int c = 2 * n; c < 2 * n + 2 && c < kCols; ++c) {
      const unsigned mask = __shfl_sync(kWholeWarp, drawn, c % 2 * kGroupLanes + group_lane());
      for (int r = 0; r < kGroupRows; ++r) kept.set(r, c, mask >> (group() % 2 * kGroupRows + r) & 1u);
    }
  }
  return kept;
}

}  // namespace switchyard::kernels::cuda
