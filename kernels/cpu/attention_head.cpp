#include "kernels/cpu/attention_head.hpp"

#include <cstring>

namespace switchyard::kernels::cpu {

namespace {

// The first `count` elements of a vector's place in memory, zeros in the others.
inline Vector load_some(const float* from, Index count) {
  Vector values{};
  for (Index lane = 0; lane < count; ++lane) values[lane] = from[lane];
  return values;
}

inline Vector keep_first(const Vector& values, Index count) {
  const UnsignedVector lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  return lanes < static_cast<std::uint32_t>(count) ? values : Vector{};
}

}  // namespace

void load_strip(const HeadShape& shape, const Strip& strip, const float* bias, float factor, float* to) {
  for (Index d = 0; d < shape.padded_size; d += kLanes) {
    const Index count = std::min(kLanes, shape.head_size - d);
    const Vector bias_vector = bias ? load_some(bias + d, count) : Vector{};
    for (Index t = 0; t < shape.tokens; ++t) {
      const float* from = strip.from + t * strip.stride + d;
      const bool readable = t * strip.stride + d + kLanes <= strip.readable;
      const Vector values = readable ? load(from) : load_some(from, count);
      store(to + t * shape.size_stride + d, keep_first((values + bias_vector) * factor, count));
    }
  }
}

void store_strip(const HeadShape& shape, const float* values, const float* row_factors, float factor, float* to,
                 Index stride, float* column_sums) {
  for (Index d = 0; d < shape.padded_size; d += kLanes) {
    const Index count = std::min(kLanes, shape.head_size - d);
    Vector sums{};
    for (Index t = 0; t < shape.tokens; ++t) {
      const Vector row = load(values + t * shape.size_stride + d) * (row_factors ? factor * row_factors[t] : factor);
      sums += row;
      float* out = to + t * stride + d;
      if (count == kLanes)
        store(out, row);
      else
        for (Index lane = 0; lane < count; ++lane) out[lane] = row[lane];
    }
    if (column_sums) std::memcpy(column_sums + d, &sums, static_cast<std::size_t>(count) * sizeof(float));
  }
}

void draw_head_scales(const HeadShape& shape, const Dropout& dropout, Index sample, Index head, float* scales) {
  if (dropout.threshold() == 0) {
    std::fill_n(scales, shape.tokens * shape.padded_tokens, 1.0f);
    return;
  }
  const Index num_blocks = shape.padded_tokens / kColumnsPerBlock;
  dropout_scales(dropout, dropout.first_row + static_cast<std::uint32_t>(sample * shape.tokens), shape.tokens,
                 static_cast<std::uint32_t>(head * num_blocks), num_blocks, scales);
}

}  // namespace switchyard::kernels::cpu
