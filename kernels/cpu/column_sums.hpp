// Sums over rows, such as the gradient of a bias: each row block sums its own rows in order into a row of partial
// sums, and the partial sums are added in block order. So the bits depend on the shape alone.
#pragma once

#include "core/context.hpp"
#include "core/types.hpp"
#include "kernels/cpu/row_blocks.hpp"

namespace switchyard::kernels::cpu {

// The calling thread's buffer for partial sums (num_blocks, cols), all zero. Valid until the next call on this thread.
float* zeroed_partial_sums(Index num_blocks, Index cols);

// sums[c] = partial_sums[0, c] + partial_sums[1, c] + ...; zeros where num_blocks = 0. stride: elements from
// one block's partial sums to the next one's.
void add_partial_sums(Index num_blocks, Index cols, const float* partial_sums, Index stride, float* sums);

// Of several arrays, each as by itself: block(segment, first_row, end_row, sums) adds the rows of one row block to
// sums (cols); those of all blocks go to segment.*out.
template <typename Segment, typename Block>
void sum_columns_of_segments(const Context& context, std::span<const Segment> segments, float* Segment::*out,
                             const Block& block) {
  Index cols = 0;
  for (const Segment& segment : segments) cols = std::max(cols, segment.cols);
  float* partial_sums = zeroed_partial_sums(num_row_blocks(segments), cols);  // (blocks of all, cols)
  for_row_blocks(context, segments, [&](const Segment& segment, Index block_idx, Index first_row, Index end_row) {
    block(segment, first_row, end_row, partial_sums + block_idx * cols);
  });
  for (const Segment& segment : segments) {
    add_partial_sums(num_row_blocks(segment.rows), segment.cols, partial_sums, cols, segment.*out);
    partial_sums += num_row_blocks(segment.rows) * cols;
  }
}

}  // namespace switchyard::kernels::cpu
