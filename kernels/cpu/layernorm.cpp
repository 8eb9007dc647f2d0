#include <algorithm>
#include <cmath>

#include "kernels/cpu/column_sums.hpp"
#include "kernels/cpu/lane_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

void layernorm(const Context& context, const LayerNorm& args) {
  const Index cols = args.cols;
  const float inverse_cols = 1.0f / static_cast<float>(cols);
  for_rows(context, args.rows, [&](Index row) {
    const float* x = args.x + row * args.x_stride;
    const float mean = sum_of_terms(0, cols, [=](Index c, auto at) { return at(x + c); }) * inverse_cols;
    const float sum_of_squares =
        sum_of_terms(0, cols, [=](Index c, auto at) { return (at(x + c) - mean) * (at(x + c) - mean); });
    const float rstd = 1.0f / std::sqrt(sum_of_squares * inverse_cols + args.epsilon);
    const float* written = nullptr;
    for (Index k = 0; k < args.slots.top_k; ++k) {
      const Index slot = args.slots.slot(row, k);
      if (slot < 0) continue;
      float* y = args.y.values + slot * cols;
      if (written) {
        copy(y, written, cols * Index{sizeof(float)});
        continue;
      }
#pragma omp simd
      for (Index c = 0; c < cols; ++c) y[c] = (x[c] - mean) * rstd * args.gamma[c] + args.beta[c];
      written = y;
    }
    args.mean[row] = mean;
    args.rstd[row] = rstd;
  });
}

namespace {

// d_y of a row: where it lies, or summed up in `sum` (cols).
const float* gradient_of_row(const LayerNormBackward& args, Index row, float* sum) {
  const Index cols = args.cols;
  const float* d_y = nullptr;
  const auto add = [&](const float* term) {
    if (!d_y) {
      d_y = term;
      return;
    }
#pragma omp simd
    for (Index c = 0; c < cols; ++c) sum[c] = d_y[c] + term[c];
    d_y = sum;
  };
  for (Index k = 0; k < args.slots.top_k; ++k)
    if (const Index slot = args.slots.slot(row, k); slot >= 0) add(args.d_y.values + slot * cols);
  if (args.addend) add(args.addend + row * cols);
  return d_y ? d_y : std::fill_n(sum, cols, 0.0f) - cols;
}

}  // namespace

// With xhat = (x - mean) rstd and g = d_y gamma: d_x = rstd (g - mean(g) - xhat mean(g xhat)), means over the row.
void layernorm_backward(const Context& context, const LayerNormBackward& args) {
  const Index cols = args.cols, num_blocks = num_row_blocks(args.rows);
  const float inverse_cols = 1.0f / static_cast<float>(cols);
  float* partial_sums = zeroed_partial_sums(num_blocks, 2 * cols);  // (blocks, 2, cols): d_gamma, d_beta
  for_row_blocks(context, args.rows, [&](Index block_idx, Index first_row, Index end_row) {
    float* gamma_sums = partial_sums + block_idx * 2 * cols;
    float* beta_sums = gamma_sums + cols;
    thread_local Scratch<float> scratch;
    float* sum = scratch.get(cols);
    for (Index row = first_row; row < end_row; ++row) {
      const float* x = args.x + row * args.x_stride;
      const float* d_y = gradient_of_row(args, row, sum);
      float* d_x = args.d_x + row * args.x_stride;
      const float mean = args.mean[row], rstd = args.rstd[row];
      const float* gamma = args.gamma;
      const float mean_g =
          sum_of_terms(0, cols, [=](Index c, auto at) { return at(d_y + c) * at(gamma + c); }) * inverse_cols;
      const float mean_g_xhat =
          sum_of_terms(0, cols,
                       [=](Index c, auto at) { return at(d_y + c) * at(gamma + c) * ((at(x + c) - mean) * rstd); }) *
          inverse_cols;
#pragma omp simd
      for (Index c = 0; c < cols; ++c) {
        const float xhat = (x[c] - mean) * rstd;
        gamma_sums[c] += d_y[c] * xhat;
        beta_sums[c] += d_y[c];
        d_x[c] += rstd * (d_y[c] * gamma[c] - mean_g - xhat * mean_g_xhat);
      }
    }
  });
  add_partial_sums(num_blocks, cols, partial_sums, 2 * cols, args.d_gamma);
  add_partial_sums(num_blocks, cols, partial_sums + cols, 2 * cols, args.d_beta);
}

}  // namespace switchyard::kernels::cpu
