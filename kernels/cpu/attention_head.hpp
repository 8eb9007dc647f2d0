// What attention and its backward pass share: the layout of one head's working arrays, and moving data in and out.
#pragma once

#include <algorithm>

#include "kernels/cpu/dropout_scales.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/small_product.hpp"
#include "kernels/cpu/transpose.hpp"
#include "kernels/cpu/vector.hpp"

namespace switchyard::kernels::cpu {

static_assert(kLanes == kColumnsPerBlock, "a row of scores and its blocks of dropout must have one padded length");

// Sizes within one head, in elements. Rows and columns are padded to whole vectors, tiles of small_product and tiles of
// transpose_tiles; what stands in the padding reaches other padding only.
struct HeadShape {
  HeadShape(Index num_tokens, Index size)
      : tokens(num_tokens),
        head_size(size),
        padded_tokens(round_up(tokens, kLanes)),
        padded_size(round_up(head_size, kLanes)),
        size_stride(round_up(head_size, kTransposeTile)),
        transposed_stride(round_up(tokens, kTransposeTile)) {
    const Index rows = std::max(round_up(tokens, kTransposeTile), round_up(tokens, kTileRows));
    by_size = rows * size_stride;
    by_tokens = round_up(rows * padded_tokens + kDropoutSlack, kTransposeTile);
    transposed = size_stride * transposed_stride;
  }

  Index tokens, head_size;
  Index padded_tokens;                   // and the row stride of (tokens, tokens) arrays
  Index padded_size;                     // columns that are computed
  Index size_stride;                     // of (tokens, head_size) arrays
  Index transposed_stride;               // of (head_size, tokens) arrays
  Index by_size, by_tokens, transposed;  // whole (tokens, head_size), (tokens, tokens), (head_size, tokens) arrays
};

// Hands out pieces of the thread's working memory, each 64-byte aligned.
class Pieces {
 public:
  explicit Pieces(Index size) {
    thread_local Scratch<float> scratch;
    next_ = scratch.get(size);
  }
  float* take(Index size) {
    float* piece = next_;
    next_ += size;
    return piece;
  }

 private:
  float* next_;
};

// to (tokens, head_size) = factor * (from + bias), zero in the columns' padding. from is one sample's and head's part
// of an array (samples, tokens, ...), rows `stride` elements apart. A null bias is zero.
void load_head(const HeadShape& shape, const float* from, Index stride, const float* bias, float factor, float* to);

// Rows of to, `stride` elements apart, = row_factors[t] * values (tokens, head_size).
void store_head(const HeadShape& shape, const float* values, const float* row_factors, float* to, Index stride);

// Rows of to = factor * values; column_sums (head_size) = their sums over tokens, in order.
void store_head_and_sums(const HeadShape& shape, const float* values, float factor, float* to, Index stride,
                         float* column_sums);

// The transposed array (head_size, tokens).
inline void transpose_head(const HeadShape& shape, const float* from, float* to) {
  transpose_tiles(shape.transposed_stride, shape.size_stride, from, shape.size_stride, to, shape.transposed_stride);
}

// Dropout's scales (tokens, tokens) of one head; ones without dropout.
void draw_head_scales(const HeadShape& shape, const Dropout& dropout, Index sample, Index head, float* scales);

// scores (tokens, tokens) = a b, with a (tokens, head_size) and b (head_size, tokens).
inline void multiply_to_scores(const HeadShape& shape, const float* a, const float* b, float* scores) {
  small_product({.m = shape.tokens,
                 .n = shape.padded_tokens,
                 .k = shape.head_size,
                 .a = a,
                 .a_row_stride = shape.size_stride,
                 .a_step = 1,
                 .b = b,
                 .b_stride = shape.transposed_stride,
                 .c = scores,
                 .c_stride = shape.padded_tokens});
}

// out (tokens, head_size) = s b or, transposed, s^T b, with s (tokens, tokens) and b (tokens, head_size).
inline void multiply_scores(const HeadShape& shape, const float* s, bool transposed, const float* b, float* out) {
  small_product({.m = shape.tokens,
                 .n = shape.padded_size,
                 .k = shape.tokens,
                 .a = s,
                 .a_row_stride = transposed ? 1 : shape.padded_tokens,
                 .a_step = transposed ? shape.padded_tokens : 1,
                 .b = b,
                 .b_stride = shape.size_stride,
                 .c = out,
                 .c_stride = shape.size_stride});
}

}  // namespace switchyard::kernels::cpu
