#include <algorithm>
#include <cmath>

#include "kernels/cpu/column_sums.hpp"
#include "kernels/cpu/dropout_scales.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/small_product.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Sizes within one head, padded to vectors and to the tiles of small_product.
struct HeadShape {
  Index tokens, head_size;
  Index padded_tokens = round_up(tokens, kColumnsPerBlock), padded_size = round_up(head_size, kLanes);
  Index rows = round_up(tokens, kTileRows);
  Index by_size = round_up(rows * padded_size, 16);                      // floats of a (rows, padded_size) array
  Index by_tokens = round_up(rows * padded_tokens + kDropoutSlack, 16);  // of a (rows, padded_tokens) array
  Index transposed = round_up(padded_size * padded_tokens, 16);          // of a (padded_size, padded_tokens) array
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

// to (rows, padded_size) = factor * (from + bias), zero in the padding. from: rows `stride` elements apart.
void load(const HeadShape& shape, const float* from, Index stride, const float* bias, float factor, float* to) {
  std::fill_n(to, shape.rows * shape.padded_size, 0.0f);
  for (Index t = 0; t < shape.tokens; ++t)
    for (Index d = 0; d < shape.head_size; ++d)
      to[t * shape.padded_size + d] = factor * (from[t * stride + d] + (bias ? bias[d] : 0.0f));
}

// to (padded_size, padded_tokens), zero in the padding.
void load_transposed(const HeadShape& shape, const float* from, float* to) {
  std::fill_n(to, shape.transposed, 0.0f);
  transpose(shape.tokens, shape.head_size, from, shape.padded_size, to, shape.padded_tokens);
}

void draw_scales(const HeadShape& shape, const Dropout& dropout, Index sample, Index head, float* scales) {
  if (dropout.threshold() == 0) {
    std::fill_n(scales, shape.tokens * shape.padded_tokens, 1.0f);
    return;
  }
  const Index num_blocks = shape.padded_tokens / kColumnsPerBlock;
  dropout_scales(dropout, dropout.first_row + static_cast<std::uint32_t>(sample * shape.tokens), shape.tokens,
                 static_cast<std::uint32_t>(head * num_blocks), num_blocks, scales);
}

void attend_head(const Attention& args, const HeadShape& shape, Index sample, Index head) {
  const Index tokens = shape.tokens, head_size = shape.head_size, width = args.heads * head_size;
  const float* qkv = args.qkv + sample * tokens * 3 * width + head * head_size;
  const float* bias = args.bias + head * head_size;
  Pieces pieces(4 * shape.by_size + shape.transposed + 2 * shape.by_tokens);
  float* q = pieces.take(shape.by_size);  // (tokens, head_size), padded, as are the others
  float* k = pieces.take(shape.by_size);
  float* v = pieces.take(shape.by_size);
  float* out = pieces.take(shape.by_size);
  float* k_transposed = pieces.take(shape.transposed);
  float* scores = pieces.take(shape.by_tokens);  // (query token, key token)
  float* scales = pieces.take(shape.by_tokens);  // of dropout
  load(shape, qkv, 3 * width, bias, 1.0f / std::sqrt(static_cast<float>(head_size)), q);
  load(shape, qkv + width, 3 * width, bias + width, 1, k);
  load(shape, qkv + 2 * width, 3 * width, bias + 2 * width, 1, v);
  load_transposed(shape, k, k_transposed);
  draw_scales(shape, args.dropout, sample, head, scales);

  small_product({.m = tokens,
                 .n = shape.padded_tokens,
                 .k = head_size,
                 .a = q,
                 .row_stride = shape.padded_size,
                 .b = k_transposed,
                 .c = scores});
  float* log_sum_exp = args.log_sum_exp + (sample * args.heads + head) * tokens;
  for (Index i = 0; i < tokens; ++i) {
    float* row = scores + i * shape.padded_tokens;
    const float* row_scales = scales + i * shape.padded_tokens;
    float max = row[0];
#pragma omp simd reduction(max : max)
    for (Index j = 0; j < tokens; ++j) max = row[j] > max ? row[j] : max;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index j = 0; j < tokens; ++j) {
      const float p = vector_exp(row[j] - max);
      sum += p;
      row[j] = p * row_scales[j];
    }
    const float inverse = 1.0f / sum;
#pragma omp simd
    for (Index j = 0; j < tokens; ++j) row[j] *= inverse;
    log_sum_exp[i] = max + std::log(sum);
  }
  small_product({.m = tokens,
                 .n = shape.padded_size,
                 .k = tokens,
                 .a = scores,
                 .row_stride = shape.padded_tokens,
                 .b = v,
                 .c = out});
  for (Index t = 0; t < tokens; ++t)
    std::copy_n(out + t * shape.padded_size, head_size, args.out + (sample * tokens + t) * width + head * head_size);
}

// Writes factor * gradient to `to`, and its sums over tokens, in order, to bias_sums.
void store_gradient(const HeadShape& shape, const float* gradient, float factor, float* to, Index stride,
                    float* bias_sums) {
  std::fill_n(bias_sums, shape.head_size, 0.0f);
  for (Index t = 0; t < shape.tokens; ++t)
    for (Index d = 0; d < shape.head_size; ++d) {
      const float value = factor * gradient[t * shape.padded_size + d];
      to[t * stride + d] = value;
      bias_sums[d] += value;
    }
}

// With M the dropout's scales and D = rowsum(d_out * out): d_V = (P M)^T d_out; d_P = (d_out V^T) M;
// d_S = P (d_P - D); d_Q = d_S K / sqrt(head_size); d_K = d_S^T Q / sqrt(head_size).
void attend_head_backward(const AttentionBackward& args, const HeadShape& shape, Index sample, Index head,
                          float* bias_sums) {
  const Index tokens = shape.tokens, head_size = shape.head_size, width = args.heads * head_size;
  const Index first_qkv = sample * tokens * 3 * width + head * head_size;
  const Index first_out = sample * tokens * width + head * head_size;
  const float* qkv = args.qkv + first_qkv;
  const float* bias = args.bias + head * head_size;
  const float factor = 1.0f / std::sqrt(static_cast<float>(head_size));
  Pieces pieces(6 * shape.by_size + 2 * shape.transposed + 3 * shape.by_tokens);
  float* q = pieces.take(shape.by_size);  // (tokens, head_size), padded; times factor
  float* k = pieces.take(shape.by_size);
  float* v = pieces.take(shape.by_size);
  float* d_out = pieces.take(shape.by_size);
  float* gradient = pieces.take(shape.by_size);
  float* k_transposed = pieces.take(shape.transposed);
  float* v_transposed = pieces.take(shape.transposed);
  float* p = pieces.take(shape.by_tokens);    // (query token, key token): scores, then P M
  float* d_p = pieces.take(shape.by_tokens);  // d_out V^T, then d_S
  float* scales = pieces.take(shape.by_tokens);
  load(shape, qkv, 3 * width, bias, factor, q);
  load(shape, qkv + width, 3 * width, bias + width, 1, k);
  load(shape, qkv + 2 * width, 3 * width, bias + 2 * width, 1, v);
  load(shape, args.d_out + first_out, width, nullptr, 1, d_out);
  load_transposed(shape, k, k_transposed);
  load_transposed(shape, v, v_transposed);
  draw_scales(shape, args.dropout, sample, head, scales);

  small_product({.m = tokens,
                 .n = shape.padded_tokens,
                 .k = head_size,
                 .a = q,
                 .row_stride = shape.padded_size,
                 .b = k_transposed,
                 .c = p});
  small_product({.m = tokens,
                 .n = shape.padded_tokens,
                 .k = head_size,
                 .a = d_out,
                 .row_stride = shape.padded_size,
                 .b = v_transposed,
                 .c = d_p});
  const float* log_sum_exp = args.log_sum_exp + (sample * args.heads + head) * tokens;
  for (Index i = 0; i < tokens; ++i) {
    const float* out = args.out + first_out + i * width;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (Index d = 0; d < head_size; ++d) dot += d_out[i * shape.padded_size + d] * out[d];
    float* p_row = p + i * shape.padded_tokens;
    float* d_p_row = d_p + i * shape.padded_tokens;
    const float* row_scales = scales + i * shape.padded_tokens;
#pragma omp simd
    for (Index j = 0; j < shape.padded_tokens; ++j) {
      const float probability = vector_exp(p_row[j] - log_sum_exp[i]);
      d_p_row[j] = probability * (d_p_row[j] * row_scales[j] - dot);
      p_row[j] = probability * row_scales[j];
    }
  }

  float* d_qkv = args.d_qkv + first_qkv;
  SmallProduct product{.m = tokens, .n = shape.padded_size, .k = tokens, .c = gradient};
  product.a = d_p;
  product.row_stride = shape.padded_tokens;
  product.b = k;
  small_product(product);
  store_gradient(shape, gradient, factor, d_qkv, 3 * width, bias_sums);
  product.row_stride = 1;
  product.step = shape.padded_tokens;
  product.b = q;
  small_product(product);
  store_gradient(shape, gradient, 1, d_qkv + width, 3 * width, bias_sums + width);
  product.a = p;
  product.b = d_out;
  small_product(product);
  store_gradient(shape, gradient, 1, d_qkv + 2 * width, 3 * width, bias_sums + 2 * width);
}

}  // namespace

void attention(const Context& context, const Attention& args) {
  const HeadShape shape{args.tokens, args.head_size};
  context.threads->parallel_for(args.samples * args.heads, [&](Index block_idx) {
    attend_head(args, shape, block_idx / args.heads, block_idx % args.heads);
  });
}

void attention_backward(const Context& context, const AttentionBackward& args) {
  const HeadShape shape{args.tokens, args.head_size};
  const Index width = args.heads * args.head_size;
  float* bias_sums = zeroed_partial_sums(args.samples, 3 * width);  // (samples, 3, heads, head_size)
  context.threads->parallel_for(args.samples * args.heads, [&](Index block_idx) {
    const Index sample = block_idx / args.heads, head = block_idx % args.heads;
    attend_head_backward(args, shape, sample, head, bias_sums + sample * 3 * width + head * args.head_size);
  });
  add_partial_sums(args.samples, 3 * width, bias_sums, 3 * width, 1, args.d_bias);
}

}  // namespace switchyard::kernels::cpu
