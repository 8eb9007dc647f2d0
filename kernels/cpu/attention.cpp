#include <cmath>
#include <limits>

#include "kernels/cpu/attention_head.hpp"
#include "kernels/cpu/column_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

// scores (tokens, tokens) becomes exp(scores - its row's maximum) * scales; the sums of the exponentials' rows and the
// maxima go to sums and maxima (tokens).
void exponentials(const HeadShape& shape, const float* scales, float* scores, float* maxima, float* sums) {
  // Columns of the padding, whatever stands there, count as minus infinity. They are not stored as such: a vector is
  // slow to load where its elements have just been stored one by one.
  const Index last = shape.padded_tokens - kLanes;
  const auto without_padding = [num_lanes = static_cast<std::uint32_t>(shape.tokens - last)](const Vector& scores_of) {
    constexpr UnsignedVector kLane = {0, 1, 2, 3, 4, 5, 6, 7};
    return kLane < num_lanes ? scores_of : broadcast(-std::numeric_limits<float>::infinity());
  };
  for (Index i = 0; i < shape.tokens; ++i) {
    const float* row = scores + i * shape.padded_tokens;
    Vector max = without_padding(load(row + last));
    for (Index j = 0; j < last; j += kLanes) max = larger(load(row + j), max);
    maxima[i] = max_of(max)[0];
  }
  for (Index i = 0; i < shape.tokens; ++i) {
    float* row = scores + i * shape.padded_tokens;
    const float* row_scales = scales + i * shape.padded_tokens;
    const Vector max = broadcast(maxima[i]);
    Vector sum{};
    const auto exponential = [&](Index j, const Vector& score) {
      const Vector p = vector_exp(score - max);
      sum += p;
      store(row + j, p * load(row_scales + j));
    };
    for (Index j = 0; j < last; j += kLanes) exponential(j, load(row + j));
    exponential(last, without_padding(load(row + last)));
    sums[i] = sum_of(sum)[0];
  }
}

void attend_head(const Attention& args, const HeadShape& shape, Index sample, Index head) {
  const Index width = args.heads * shape.head_size, row = sample * shape.tokens;
  const float* bias = args.bias + head * shape.head_size;
  const float* qkv = args.qkv.values + row * 3 * width + head * shape.head_size;
  Pieces pieces(4 * shape.by_size + shape.transposed + 2 * shape.by_tokens + 2 * shape.transposed_stride);
  float* q = pieces.take(shape.by_size);  // (tokens, head_size), as are k, v and out
  float* k = pieces.take(shape.by_size);
  float* v = pieces.take(shape.by_size);
  float* out = pieces.take(shape.by_size);
  float* k_transposed = pieces.take(shape.transposed);
  float* scores = pieces.take(shape.by_tokens);          // (query token, key token)
  float* scales = pieces.take(shape.by_tokens);          // of dropout
  float* maxima = pieces.take(shape.transposed_stride);  // (query token)
  float* sums = pieces.take(shape.transposed_stride);
  load_head(shape, qkv, 3 * width, bias, 1.0f / std::sqrt(static_cast<float>(shape.head_size)), q);
  load_head(shape, qkv + width, 3 * width, bias + width, 1, k);
  load_head(shape, qkv + 2 * width, 3 * width, bias + 2 * width, 1, v);
  transpose_head(shape, k, k_transposed);
  draw_head_scales(shape, args.dropout, sample, head, scales);

  multiply_to_scores(shape, q, k_transposed, scores);
  exponentials(shape, scales, scores, maxima, sums);
  multiply_scores(shape, scores, false, v, out);
  float* log_sum_exp = args.log_sum_exp + (sample * args.heads + head) * shape.tokens;
  for (Index i = 0; i < shape.tokens; ++i) {
    log_sum_exp[i] = maxima[i] + std::log(sums[i]);
    sums[i] = 1.0f / sums[i];
  }
  store_head(shape, out, sums, args.out.values + row * width + head * shape.head_size, width);
}

// From scores to P M (in place) and from d_out V^T to d_S (in place); see attend_head_backward.
void score_gradients(const HeadShape& shape, const float* log_sum_exp, const float* out, const float* d_out,
                     const float* scales, float* scores, float* d_scores) {
  for (Index i = 0; i < shape.tokens; ++i) {
    Vector products{};
    for (Index d = 0; d < shape.padded_size; d += kLanes)
      products += load(out + i * shape.size_stride + d) * load(d_out + i * shape.size_stride + d);
    const Vector dot = sum_of(products);
    for (Index j = i * shape.padded_tokens; j < (i + 1) * shape.padded_tokens; j += kLanes) {
      const Vector p = vector_exp(load(scores + j) - log_sum_exp[i]), scale = load(scales + j);
      store(d_scores + j, p * (load(d_scores + j) * scale - dot));
      store(scores + j, p * scale);
    }
  }
}

// With M the dropout's scales and D = rowsum(d_out * out): d_V = (P M)^T d_out; d_P = (d_out V^T) M;
// d_S = P (d_P - D); d_Q = d_S K / sqrt(head_size); d_K = d_S^T Q / sqrt(head_size).
void attend_head_backward(const AttentionBackward& args, const HeadShape& shape, Index sample, Index head,
                          float* bias_sums) {
  const Index width = args.heads * shape.head_size, row = sample * shape.tokens;
  const float* bias = args.bias + head * shape.head_size;
  const float factor = 1.0f / std::sqrt(static_cast<float>(shape.head_size));
  const Index first = row * 3 * width + head * shape.head_size, first_out = row * width + head * shape.head_size;
  const float* qkv = args.qkv.values + first;
  Pieces pieces(6 * shape.by_size + 2 * shape.transposed + 3 * shape.by_tokens);
  float* q = pieces.take(shape.by_size);  // (tokens, head_size), times factor
  float* k = pieces.take(shape.by_size);
  float* v = pieces.take(shape.by_size);
  float* out = pieces.take(shape.by_size);
  float* d_out = pieces.take(shape.by_size);
  float* gradient = pieces.take(shape.by_size);
  float* k_transposed = pieces.take(shape.transposed);
  float* v_transposed = pieces.take(shape.transposed);
  float* scores = pieces.take(shape.by_tokens);  // (query token, key token)
  float* d_scores = pieces.take(shape.by_tokens);
  float* scales = pieces.take(shape.by_tokens);
  load_head(shape, qkv, 3 * width, bias, factor, q);
  load_head(shape, qkv + width, 3 * width, bias + width, 1, k);
  load_head(shape, qkv + 2 * width, 3 * width, bias + 2 * width, 1, v);
  load_head(shape, args.out.values + first_out, width, nullptr, 1, out);
  load_head(shape, args.d_out.values + first_out, width, nullptr, 1, d_out);
  transpose_head(shape, k, k_transposed);
  transpose_head(shape, v, v_transposed);
  draw_head_scales(shape, args.dropout, sample, head, scales);

  multiply_to_scores(shape, q, k_transposed, scores);
  multiply_to_scores(shape, d_out, v_transposed, d_scores);
  score_gradients(shape, args.log_sum_exp + (sample * args.heads + head) * shape.tokens, out, d_out, scales, scores,
                  d_scores);
  float* d_qkv = args.d_qkv.values + first;
  multiply_scores(shape, d_scores, false, k, gradient);
  store_head_and_sums(shape, gradient, factor, d_qkv, 3 * width, bias_sums);
  multiply_scores(shape, d_scores, true, q, gradient);
  store_head_and_sums(shape, gradient, 1, d_qkv + width, 3 * width, bias_sums + width);
  multiply_scores(shape, scores, true, d_out, gradient);
  store_head_and_sums(shape, gradient, 1, d_qkv + 2 * width, 3 * width, bias_sums + 2 * width);
}

// Calls body(sample, head): a block of work is some heads of one sample, which lie in the same cache lines.
template <typename Body>
void for_heads(const Context& context, Index samples, Index heads, const Body& body) {
  constexpr Index kMinBlocks = 32;
  const Index heads_in_block = std::clamp(samples * heads / kMinBlocks, Index{1}, heads);
  const Index blocks_in_sample = ceil_div(heads, heads_in_block);
  context.threads->parallel_for(samples * blocks_in_sample, [&](Index block_idx) {
    const Index sample = block_idx / blocks_in_sample, first_head = block_idx % blocks_in_sample * heads_in_block;
    for (Index head = first_head; head < std::min(heads, first_head + heads_in_block); ++head) body(sample, head);
  });
}

}  // namespace

void attention(const Context& context, const Attention& args) {
  const HeadShape shape(args.tokens, args.head_size);
  for_heads(context, args.samples, args.heads,
            [&](Index sample, Index head) { attend_head(args, shape, sample, head); });
}

void attention_backward(const Context& context, const AttentionBackward& args) {
  const HeadShape shape(args.tokens, args.head_size);
  const Index width = args.heads * args.head_size;
  float* bias_sums = zeroed_partial_sums(args.samples, 3 * width);  // (samples, 3, heads, head_size)
  for_heads(context, args.samples, args.heads, [&](Index sample, Index head) {
    attend_head_backward(args, shape, sample, head, bias_sums + sample * 3 * width + head * args.head_size);
  });
  add_partial_sums(args.samples, 3 * width, bias_sums, 3 * width, args.d_bias);
}

}  // namespace switchyard::kernels::cpu
