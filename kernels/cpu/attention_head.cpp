#include "kernels/cpu/attention_head.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Calls body(d) for vectors that cover columns [0, head_size) exactly: the last one overlaps the one before it, so that
// nothing beside the columns is touched. Needs head_size >= kLanes.
template <typename Body>
inline void for_columns(const HeadShape& shape, const Body& body) {
  for (Index d = 0; d + kLanes <= shape.head_size; d += kLanes) body(d);
  if (shape.head_size != shape.padded_size) body(shape.head_size - kLanes);
}

}  // namespace

void load_head(const HeadShape& shape, const float* from, Index stride, const float* bias, float factor, float* to) {
  constexpr Index kCacheLine = 64 / sizeof(float);
  for (Index t = 0; t < shape.tokens; ++t, from += stride, to += shape.size_stride) {
    // The next head's columns, which this thread most likely loads next: rows far apart are slow to come.
    for (Index d = shape.head_size; d < 2 * shape.head_size; d += kCacheLine) __builtin_prefetch(from + d);
    store(to + shape.padded_size - kLanes, Vector{});
    if (shape.head_size < kLanes)
      for (Index d = 0; d < shape.head_size; ++d) to[d] = (from[d] + (bias ? bias[d] : 0.0f)) * factor;
    else if (bias)
      for_columns(shape, [&](Index d) { store(to + d, (load(from + d) + load(bias + d)) * factor); });
    else
      for_columns(shape, [&](Index d) { store(to + d, load(from + d) * factor); });
  }
}

void store_head(const HeadShape& shape, const float* values, const float* row_factors, float* to, Index stride) {
  for (Index t = 0; t < shape.tokens; ++t, values += shape.size_stride, to += stride)
    if (shape.head_size < kLanes)
      for (Index d = 0; d < shape.head_size; ++d) to[d] = values[d] * row_factors[t];
    else
      for_columns(shape, [&](Index d) { store(to + d, load(values + d) * row_factors[t]); });
}

void store_head_and_sums(const HeadShape& shape, const float* values, float factor, float* to, Index stride,
                         float* column_sums) {
  std::fill_n(column_sums, shape.head_size, 0.0f);
  if (shape.head_size < kLanes) {
    for (Index t = 0; t < shape.tokens; ++t, values += shape.size_stride, to += stride)
      for (Index d = 0; d < shape.head_size; ++d) {
        to[d] = values[d] * factor;
        column_sums[d] += to[d];
      }
    return;
  }
  for_columns(shape, [&](Index d) {
    Vector sums{};
    for (Index t = 0; t < shape.tokens; ++t) {
      const Vector row = load(values + t * shape.size_stride + d) * factor;
      sums += row;
      store(to + t * stride + d, row);
    }
    store(column_sums + d, sums);
  });
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
