#include "kernels/cpu/column_sums.hpp"

#include <algorithm>

#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

float* zeroed_partial_sums(Index num_blocks, Index cols) {
  thread_local Scratch<float> scratch;
  float* partial_sums = scratch.get(num_blocks * cols);
  std::fill_n(partial_sums, num_blocks * cols, 0.0f);
  return partial_sums;
}

void add_partial_sums(Index num_blocks, Index cols, const float* partial_sums, Index stride, float* sums) {
  std::fill_n(sums, cols, 0.0f);
  for (Index block_idx = 0; block_idx < num_blocks; ++block_idx) {
    const float* block = partial_sums + block_idx * stride;
#pragma omp simd
    for (Index c = 0; c < cols; ++c) sums[c] += block[c];
  }
}

void column_sum(const Context& context, std::span<const ColumnSum> segments) {
  sum_columns_of_segments(context, segments, &ColumnSum::sums,
                          [](const ColumnSum& s, Index first_row, Index end_row, float* sums) {
                            for (Index row = first_row; row < end_row; ++row) {
                              const float* x = s.x.values + row * s.cols;
#pragma omp simd
                              for (Index c = 0; c < s.cols; ++c) sums[c] += x[c];
                            }
                          });
}

}  // namespace switchyard::kernels::cpu
