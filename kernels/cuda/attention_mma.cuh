// What attention in bf16 and its backward pass share. Tokens of a (sample, head) are cut into tiles of 16 tokens for
// each warp of a block. Products have bf16 operands, in shared memory or in fragments of mma.cuh, and fp32 sums; a
// head's size is padded by zeros to kSize columns, and its tokens to whole tiles.
#pragma once

#include "kernels/cuda/attention_head.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

constexpr int kWarpTokens = 16;
template <int kSize>
constexpr int kMaxWarps = kSize <= 64 ? 8 : 4;
template <int kSize>
constexpr int kRowStride = kSize + 8;  // of arrays (tokens, kSize): an odd number of 16 bytes, see mma.cuh
constexpr float kLog2E = 1.44269504f;

struct Tiles {
  int count = 0, warps = 0;
  __host__ __device__ int tokens() const { return warps * kWarpTokens; }  // of one
};
// As few as can be, as equal as can be.
template <int kSize>
Tiles tiles_of(Index tokens) {
  const Index warps = ceil_div(tokens, kWarpTokens), count = ceil_div(warps, kMaxWarps<kSize>);
  return {static_cast<int>(count), static_cast<int>(ceil_div(warps, count))};
}

// One head's part of an array (samples, tokens, cols), from its first token on.
struct HeadRows {
  const float* values;
  const Bf16* rounded;
  Index cols;
  const float* bias;  // null: zero

  __device__ HeadRows(const Operand& array, Index first_row, Index num_cols, Index column, const float* add = nullptr)
      : values(array.values ? array.values + first_row * num_cols + column : nullptr),
        rounded(array.rounded ? array.rounded + first_row * rounded_cols(num_cols) + column : nullptr),
        cols(num_cols),
        bias(add ? add + column : nullptr) {}
};

// Whether a head's rows are whole eights, which can be read and written at once. Rounded rows are 16-byte aligned.
__device__ inline bool in_eights(const float* values, int size) {
  return size % 8 == 0 && reinterpret_cast<std::uintptr_t>(values) % 16 == 0;
}

__device__ inline float widened(float x) { return x; }
__device__ inline float widened(Bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ inline Eight load_eight(const float* from) {
  const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}
__device__ inline Eight load_eight(const Bf16* from) {
  const uint4 pairs = *reinterpret_cast<const uint4*>(from);
  const auto low = [](unsigned pair) { return __uint_as_float(pair << 16); };
  const auto high = [](unsigned pair) { return __uint_as_float(pair & 0xffff0000u); };
  return {{low(pairs.x), high(pairs.x), low(pairs.y), high(pairs.y), low(pairs.z), high(pairs.z), low(pairs.w),
           high(pairs.w)}};
}
__device__ inline uint4 rounded_eight(const Eight& x) {
  return make_uint4(rounded_pair(x.at[0], x.at[1]), rounded_pair(x.at[2], x.at[3]), rounded_pair(x.at[4], x.at[5]),
                    rounded_pair(x.at[6], x.at[7]));
}

// Loads are given out in batches before the first is waited for.
template <int kSize, typename Element>
__device__ inline void load_singly(const Element* from, Index stride, const float* bias, int num_rows, int size,
                                   Bf16* to) {
  constexpr int kBatch = kSize <= 32 ? kSize / 2 : 8;
#pragma unroll 1
  for (int first = lane(); first < kWarpTokens * kSize; first += kBatch * kWarpSize) {
    float x[kBatch];
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
      const int row = (first + n * kWarpSize) / kSize, col = (first + n * kWarpSize) % kSize;
      x[n] = row < num_rows && col < size ? widened(from[row * stride + col]) + (bias ? bias[col] : 0.0f) : 0.0f;
    }
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
      const int row = (first + n * kWarpSize) / kSize, col = (first + n * kWarpSize) % kSize;
      to[row * kRowStride<kSize> + col].bits = static_cast<std::uint16_t>(rounded_pair(x[n], 0));
    }
  }
}

template <int kSize, typename Element>
__device__ inline void load_eights(const Element* from, Index stride, const float* bias, int num_rows, int size,
                                   Bf16* to) {
  constexpr int kEights = kSize / 8, kBatch = kSize < 64 ? kSize / 16 : 4;
#pragma unroll 1
  for (int first = lane(); first < kWarpTokens * kEights; first += kBatch * kWarpSize) {
    Eight x[kBatch];
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
      const int row = (first + n * kWarpSize) / kEights, col = (first + n * kWarpSize) % kEights * 8;
      x[n] = row < num_rows && col < size ? load_eight(from + row * stride + col) : Eight{};
    }
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
      const int row = (first + n * kWarpSize) / kEights, col = (first + n * kWarpSize) % kEights * 8;
      if (bias && row < num_rows && col < size)
        for (int i = 0; i < 8; ++i) x[n].at[i] += bias[col + i];
      *reinterpret_cast<uint4*>(to + row * kRowStride<kSize> + col) = rounded_eight(x[n]);
    }
  }
}

// to (16, kRowStride) = x + bias, rounded, for tokens first_token .. + 15 of the head; zeros beyond its tokens and its
// size. By one warp.
template <int kSize>
__device__ inline void load_rows(const HeadRows& rows, int first_token, int tokens, int size, Bf16* to) {
  const int num_rows = tokens - first_token;  // or more, or none
  const auto load = [&](const auto* from, Index stride) {
    from += first_token * stride;
    if (in_eights(rows.values, size))
      load_eights<kSize>(from, stride, rows.bias, num_rows, size, to);
    else
      load_singly<kSize>(from, stride, rows.bias, num_rows, size, to);
  };
  if (rows.rounded)
    load(rows.rounded, rounded_cols(rows.cols));
  else
    load(rows.values, rows.cols);
}

// to (16, kRowStride), from its first column on: tiles side by side, their first eight rows times `factor`, the others
// times factor_of_second; by one warp.
template <int kSize, int kTiles>
__device__ inline void spread_tiles(const FragmentC (&tiles)[kTiles], float factor, float factor_of_second, float* to) {
  to += lane() / 4 * kRowStride<kSize> + lane() % 4 * 2;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const float* at = tiles[n].at;
    *reinterpret_cast<float2*>(to + n * 8) = make_float2(factor * at[0], factor * at[1]);
    *reinterpret_cast<float2*>(to + 8 * kRowStride<kSize> + n * 8) =
        make_float2(factor_of_second * at[2], factor_of_second * at[3]);
  }
}

// rows (16, kRowStride) of a warp become rows first_row .. of an array (rows, cols), from `column` on.
template <int kSize>
__device__ inline void store_rows(const float* rows, const NewOperand& array, Index first_row, Index cols, Index column,
                                  int num_rows, int size) {
  float* const values = array.values ? array.values + first_row * cols + column : nullptr;
  Bf16* const rounded = array.rounded ? array.rounded + first_row * rounded_cols(cols) + column : nullptr;
  if (in_eights(values, size)) {
    for (int i = lane(); i < kWarpTokens * (kSize / 8); i += kWarpSize) {
      const int row = i / (kSize / 8), col = i % (kSize / 8) * 8;
      if (row >= num_rows || col >= size) continue;
      const auto* from = reinterpret_cast<const float4*>(rows + row * kRowStride<kSize> + col);
      if (values) {
        auto* const to = reinterpret_cast<float4*>(values + row * cols + col);
        to[0] = from[0];
        to[1] = from[1];
      }
      if (rounded)
        *reinterpret_cast<uint4*>(rounded + row * rounded_cols(cols) + col) =
            rounded_eight(load_eight(rows + row * kRowStride<kSize> + col));
    }
    return;
  }
  for (int i = lane(); i < kWarpTokens * kSize; i += kWarpSize) {
    const int row = i / kSize, col = i % kSize;
    if (row >= num_rows || col >= size) continue;
    const float value = rows[row * kRowStride<kSize> + col];
    if (values) values[row * cols + col] = value;
    if (rounded) write_rounded(rounded + row * rounded_cols(cols) + col, value);
  }
}

// The warp's 16 rows of an array (tokens, kSize) as the left side of products.
template <int kSize>
__device__ inline void load_left(const Bf16* rows, FragmentA (&left)[kSize / 16]) {
#pragma unroll
  for (int i = 0; i < kSize / 16; ++i) left[i] = load_a(rows + i * 16, kRowStride<kSize>);
}

// products (16, 16) = x y^T, with 16 rows of y (tokens, kSize)
template <int kSize>
__device__ inline void multiply_rows(const FragmentA (&x)[kSize / 16], const Bf16* y, FragmentC (&products)[2]) {
  products[0] = products[1] = FragmentC{};
#pragma unroll
  for (int i = 0; i < kSize / 16; ++i) {
    const TwoB columns = load_b_transposed(y + i * 16, kRowStride<kSize>);
    multiply_add(products[0], x[i], columns.at[0]);
    multiply_add(products[1], x[i], columns.at[1]);
  }
}

// sums (16, kCols) += x y, with 16 rows of y (tokens, kSize) and x (16, 16)
template <int kSize, int kTiles>
__device__ inline void add_products(const FragmentA& x, const Bf16* y, FragmentC (&sums)[kTiles]) {
#pragma unroll
  for (int n = 0; n < kTiles; n += 2) {
    const TwoB columns = load_b(y + n * 8, kRowStride<kSize>);
    multiply_add(sums[n], x, columns.at[0]);
    multiply_add(sums[n + 1], x, columns.at[1]);
  }
}

// Of 16 queries and 16 keys, the latter from a multiple of 8 on: lane l draws, and gets, a bit for each key of query
// first_query + l % 16.
__device__ inline unsigned draw_kept(const KeptKeys& keys, int first_query, int first_key) {
  const unsigned mine = keys.mask(first_query + lane() % 16, first_key + lane() / 16 * 8);
  const unsigned others = __shfl_xor_sync(kWholeWarp, mine, 16);
  return lane() < 16 ? mine | others << 8 : others | mine << 8;
}

// What dropout keeps of two tiles of scores, side by side, of which the lane has elements tile, i = 0 .. 3.
struct KeptOfQueries {  // rows are queries, columns keys
  unsigned of_row[2] = {~0u, ~0u};
  __device__ KeptOfQueries(const KeptKeys& keys, int first_query, int first_key) {
    if (keys.dropout.threshold == 0) return;
    const unsigned drawn = draw_kept(keys, first_query, first_key);
#pragma unroll
    for (int i = 0; i < 2; ++i) of_row[i] = __shfl_sync(kWholeWarp, drawn, lane() / 4 + 8 * i) >> (lane() % 4 * 2);
  }
  __device__ bool operator()(int tile, int i) const { return of_row[i / 2] >> (tile * 8 + i % 2) & 1u; }
};
struct KeptOfKeys {  // rows are keys, columns queries
  unsigned of_column[2][2] = {{~0u, ~0u}, {~0u, ~0u}};
  __device__ KeptOfKeys(const KeptKeys& keys, int first_query, int first_key) {
    if (keys.dropout.threshold == 0) return;
    const unsigned drawn = draw_kept(keys, first_query, first_key);
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        of_column[tile][i] = __shfl_sync(kWholeWarp, drawn, tile * 8 + lane() % 4 * 2 + i) >> (lane() / 4);
  }
  __device__ bool operator()(int tile, int i) const { return of_column[tile][i % 2] >> (i / 2 * 8) & 1u; }
};

}  // namespace switchyard::kernels::cuda
