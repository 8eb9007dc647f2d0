// What attention in bf16 and its backward pass share. Tokens of a (sample, head) are cut into tiles of 16 tokens for
// each warp of a block. Products have bf16 operands, in shared memory or in fragments of mma.cuh, and fp32 sums; a
// head's size is padded by zeros to kSize columns, and its tokens to whole tiles.
#pragma once

#include "kernels/cuda/attention_head.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

constexpr int kWarpTokens = 16;
constexpr int kMaxWarps = 5;
template <int kSize>
constexpr int kRowStride = kSize + 8;  // of arrays (tokens, kSize): an odd number of 16 bytes, see mma.cuh
constexpr float kLog2E = 1.44269504f;

struct Tiles {
  int count = 0, warps = 0;
  __host__ __device__ int tokens() const { return warps * kWarpTokens; }  // of one
};
// As few as can be, as equal as can be.
inline Tiles tiles_of(Index tokens) {
  const Index warps = ceil_div(tokens, kWarpTokens), count = ceil_div(warps, kMaxWarps);
  return {static_cast<int>(count), static_cast<int>(ceil_div(warps, count))};
}

__device__ inline int tokens_in_tile(int tokens, int first, const Tiles& tiles) {
  return tokens - first < tiles.tokens() ? tokens - first : tiles.tokens();
}

// One head's part of an array (samples, tokens, cols), from its first token on.
struct HeadArray {
  const float* values;
  const Bf16* rounded;
  int cols;
  const float* bias;  // null: zero

  __device__ HeadArray(const Operand& array, Index first_row, int num_cols, int column, const float* add = nullptr)
      : values(array.values ? array.values + first_row * num_cols + column : nullptr),
        rounded(array.rounded ? array.rounded + first_row * rounded_cols(num_cols) + column : nullptr),
        cols(num_cols),
        bias(add ? add + column : nullptr) {}
};

// Whether a head's rows are whole eights, which can be read and written at once. Rounded rows are 16-byte aligned.
__device__ inline bool in_eights(const float* values, int size) {
  return size % 8 == 0 && reinterpret_cast<std::uintptr_t>(values) % 16 == 0;
}

// One or eight neighbours of a row, as floats.
template <int kCount>
struct Neighbours {
  float at[kCount];
};
__device__ inline void load_neighbours(const float* from, Neighbours<1>& x) { x.at[0] = *from; }
__device__ inline void load_neighbours(const Bf16* from, Neighbours<1>& x) {
  x.at[0] = __uint_as_float(static_cast<unsigned>(from->bits) << 16);
}
__device__ inline void load_neighbours(const float* from, Neighbours<8>& x) {
  const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
  x = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}
__device__ inline void load_neighbours(const Bf16* from, Neighbours<8>& x) {
  const uint4 pairs = *reinterpret_cast<const uint4*>(from);
  x = {{first_of_pair(pairs.x), second_of_pair(pairs.x), first_of_pair(pairs.y), second_of_pair(pairs.y),
        first_of_pair(pairs.z), second_of_pair(pairs.z), first_of_pair(pairs.w), second_of_pair(pairs.w)}};
}
__device__ inline uint4 rounded_eight(const Neighbours<8>& x) {
  return make_uint4(rounded_pair(x.at[0], x.at[1]), rounded_pair(x.at[2], x.at[3]), rounded_pair(x.at[4], x.at[5]),
                    rounded_pair(x.at[6], x.at[7]));
}
// To shared memory.
__device__ inline void keep_neighbours(Bf16* to, const Neighbours<1>& x) { write_rounded(to, x.at[0]); }
__device__ inline void keep_neighbours(Bf16* to, const Neighbours<8>& x) {
  *reinterpret_cast<uint4*>(to) = rounded_eight(x);
}
// To global memory.
__device__ inline void store_neighbours(float* to, const Neighbours<1>& x) { *to = x.at[0]; }
__device__ inline void store_neighbours(Bf16* to, const Neighbours<1>& x) { write_rounded(to, x.at[0]); }
__device__ inline void store_neighbours(float* to, const Neighbours<8>& x) {
  store_whole(to, make_float4(x.at[0], x.at[1], x.at[2], x.at[3]));
  store_whole(to + 4, make_float4(x.at[4], x.at[5], x.at[6], x.at[7]));
}
__device__ inline void store_neighbours(Bf16* to, const Neighbours<8>& x) { store_whole(to, rounded_eight(x)); }

// Which of 16 rows of kSize columns a lane has: kCount neighbours from first_col() on, and so on every kColStep
// columns, of rows first_row(), first_row() + kRowStep, ..
template <int kSize, int kCount>
struct LanePart {
  static constexpr int kLanes = kSize / kCount < kWarpSize ? kSize / kCount : kWarpSize;  // of a row
  static constexpr int kColStep = kLanes * kCount, kRowStep = kWarpSize / kLanes;
  static constexpr int kRows = kWarpTokens * kLanes / kWarpSize;
  __device__ static int first_col() { return lane() % kLanes * kCount; }
  __device__ static int first_row() { return lane() / kLanes; }
};

// All that a lane has of a column is asked for before the first is waited for; what is beyond the rows is read as the
// last of them, then written over.
template <int kSize, int kCount, typename Element>
__device__ inline void load_part(const Element* from, int stride, const float* bias, int num_rows, int size, Bf16* to) {
  using Part = LanePart<kSize, kCount>;
#pragma unroll 1
  for (int col = Part::first_col(); col < kSize; col += Part::kColStep) {
    Bf16* const to_col = to + Part::first_row() * kRowStride<kSize> + col;
    const int rows = col < size ? num_rows - Part::first_row() : 0;  // from the lane's first on
    if (rows > 0) {
      Neighbours<kCount> x[Part::kRows], add = {};
      const Element* at = from + Part::first_row() * stride + col;
#pragma unroll
      for (int n = 0; n < Part::kRows; ++n) {
        load_neighbours(at, x[n]);
        if ((n + 1) * Part::kRowStep < rows) at += Part::kRowStep * stride;
      }
      if (bias)
#pragma unroll
        for (int i = 0; i < kCount; ++i) add.at[i] = bias[col + i];
#pragma unroll
      for (int n = 0; n < Part::kRows; ++n) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) x[n].at[i] += add.at[i];
        keep_neighbours(to_col + n * Part::kRowStep * kRowStride<kSize>, x[n]);
      }
    }
#pragma unroll 1
    for (int n = 0; n < Part::kRows; ++n)
      if (n * Part::kRowStep >= rows)
        keep_neighbours(to_col + n * Part::kRowStep * kRowStride<kSize>, Neighbours<kCount>{});
  }
}

// to (16, kRowStride) = x + bias, rounded, for tokens first_token .. + 15 of the head; zeros beyond its tokens and its
// size. By one warp.
template <int kSize>
__device__ inline void load_rows(const HeadArray& rows, int first_token, int tokens, int size, Bf16* to) {
  const int num_rows = tokens - first_token;  // or more, or none
  const auto load = [&](const auto* from, int stride) {
    from += static_cast<Index>(first_token) * stride;
    if (in_eights(rows.values, size))
      load_part<kSize, 8>(from, stride, rows.bias, num_rows, size, to);
    else
      load_part<kSize, 1>(from, stride, rows.bias, num_rows, size, to);
  };
  if (rows.rounded)
    load(rows.rounded, static_cast<int>(rounded_cols(rows.cols)));
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

template <int kSize, int kCount, typename Element>
__device__ inline void store_part(const float* rows, Element* to, int stride, int num_rows, int size) {
  using Part = LanePart<kSize, kCount>;
#pragma unroll 1
  for (int col = Part::first_col(); col < size; col += Part::kColStep) {
    Element* at = to + Part::first_row() * stride + col;
#pragma unroll 4
    for (int row = Part::first_row(); row < kWarpTokens; row += Part::kRowStep) {
      Neighbours<kCount> x;
      load_neighbours(rows + row * kRowStride<kSize> + col, x);
      if (row < num_rows) store_neighbours(at, x);
      at += Part::kRowStep * stride;
    }
  }
}

// rows (16, kRowStride) of a warp become rows first_row .. of an array (rows, cols), from `column` on.
template <int kSize>
__device__ inline void store_rows(const float* rows, const NewOperand& array, Index first_row, int cols, int column,
                                  int num_rows, int size) {
  const auto store = [&](auto* to, int stride) {
    to += first_row * stride + column;
    if (in_eights(array.values, size))
      store_part<kSize, 8>(rows, to, stride, num_rows, size);
    else
      store_part<kSize, 1>(rows, to, stride, num_rows, size);
  };
  if (array.values) store(array.values, cols);
  if (array.rounded) store(array.rounded, static_cast<int>(rounded_cols(cols)));
}

// 16 rows of an array (tokens, kSize) as the left side of products: in registers, or fetched for every product.
template <int kSize>
struct HeldRows {
  FragmentA fragments[kSize / 16];
  __device__ explicit HeldRows(const Bf16* rows) {
#pragma unroll
    for (int i = 0; i < kSize / 16; ++i) fragments[i] = load_a(rows + i * 16, kRowStride<kSize>);
  }
  __device__ const FragmentA& operator[](int i) const { return fragments[i]; }
};
template <int kSize>
struct FetchedRows {
  const Bf16* rows;
  __device__ explicit FetchedRows(const Bf16* from) : rows(from) {}
  __device__ FragmentA operator[](int i) const { return load_a(rows + i * 16, kRowStride<kSize>); }
};

// products (16, 16) = x y^T, with 16 rows of x and of y (tokens, kSize)
template <int kSize, typename Rows>
__device__ inline void multiply_rows(const Rows& x, const Bf16* y, FragmentC (&products)[2]) {
  products[0] = products[1] = FragmentC{};
#pragma unroll
  for (int i = 0; i < kSize / 16; ++i) {
    const TwoB columns = load_b_transposed(y + i * 16, kRowStride<kSize>);
    const FragmentA row_part = x[i];
    multiply_add(products[0], row_part, columns.at[0]);
    multiply_add(products[1], row_part, columns.at[1]);
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
  unsigned bits = ~0u;
  __device__ KeptOfKeys(const KeptKeys& keys, int first_query, int first_key) {
    if (keys.dropout.threshold == 0) return;
    const unsigned drawn = draw_kept(keys, first_query, first_key);
    bits = 0;
#pragma unroll
    for (int column = 0; column < 4; ++column) {
      const unsigned of_query = __shfl_sync(kWholeWarp, drawn, column / 2 * 8 + lane() % 4 * 2 + column % 2);
      bits |= (of_query >> (lane() / 4) & 0x101u) << column;  // keys g and g + 8
    }
  }
  __device__ bool operator()(int tile, int i) const { return bits >> (tile * 2 + i % 2 + i / 2 * 8) & 1u; }
};

}  // namespace switchyard::kernels::cuda
