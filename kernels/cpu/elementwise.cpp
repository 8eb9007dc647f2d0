#include "kernels/cpu/activations.hpp"
#include "kernels/cpu/column_sums.hpp"
#include "kernels/cpu/dropout_scales.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"

namespace switchyard::kernels::cpu {

namespace {

template <typename Function>
void activate(const BiasActivationDropout& args, Index first_row, Index end_row) {
  for (Index row = first_row; row < end_row; ++row) {
    const float* x = args.x.values + row * args.cols;
    float* y = args.y.values + row * args.cols;
    for_dropout_chunks(args.dropout, row, args.cols, [&](Index first_col, Index end_col, const float* scales) {
#pragma omp simd
      for (Index c = first_col; c < end_col; ++c) y[c] = Function::value(x[c] + args.bias[c]) * scales[c - first_col];
    });
  }
}

// sums (cols): of the rows' d_x, added to what is there.
template <typename Function>
void activate_backward(const BiasActivationDropoutBackward& args, Index first_row, Index end_row, float* sums) {
  const Index cols = args.cols;
  for (Index row = first_row; row < end_row; ++row) {
    const float* x = args.x.values + row * cols;
    const float* d_y = args.d_y.values + row * cols;
    float* d_x = args.d_x.values + row * cols;
    for_dropout_chunks(args.dropout, row, cols, [&](Index first_col, Index end_col, const float* scales) {
#pragma omp simd
      for (Index c = first_col; c < end_col; ++c) {
        const float d = d_y[c] * scales[c - first_col] * Function::slope(x[c] + args.bias[c]);
        d_x[c] = d;
        sums[c] += d;
      }
    });
  }
}

}  // namespace

void bias_activation_dropout(const Context& context, std::span<const BiasActivationDropout> segments) {
  for_row_blocks(context, segments, [&](const BiasActivationDropout& s, Index, Index first_row, Index end_row) {
    with_function<Gelu>(s.activation, [&](auto function) { activate<decltype(function)>(s, first_row, end_row); });
  });
}

void bias_activation_dropout_backward(const Context& context, std::span<const BiasActivationDropoutBackward> segments) {
  sum_columns_of_segments(context, segments, &BiasActivationDropoutBackward::d_bias,
                          [](const BiasActivationDropoutBackward& s, Index first_row, Index end_row, float* sums) {
                            with_function<Gelu>(s.activation, [&](auto function) {
                              activate_backward<decltype(function)>(s, first_row, end_row, sums);
                            });
                          });
}

void bias_dropout_residual(const Context& context, const BiasDropoutResidual& args) {
  for_rows(context, args.rows, [&](Index row) {
    const float* x = args.x.values + row * args.cols;
    const float* residual = args.residual ? args.residual + row * args.cols : nullptr;
    float* y = args.y + row * args.cols;
    for_dropout_chunks(args.dropout, row, args.cols, [&](Index first_col, Index end_col, const float* scales) {
#pragma omp simd
      for (Index c = first_col; c < end_col; ++c)
        y[c] = (residual ? residual[c] : 0.0f) + (args.bias ? x[c] + args.bias[c] : x[c]) * scales[c - first_col];
    });
  });
}

void dropout_backward(const Context& context, const DropoutBackward& args) {
  const Index cols = args.cols, num_blocks = num_row_blocks(args.rows);
  float* partial_sums = zeroed_partial_sums(num_blocks, cols);  // (blocks, cols)
  for_row_blocks(context, args.rows, [&](Index block_idx, Index first_row, Index end_row) {
    float* sums = partial_sums + block_idx * cols;
    for (Index row = first_row; row < end_row; ++row) {
      const float* d_y = args.d_y + row * cols;
      float* d_x = args.d_x.values + row * cols;
      for_dropout_chunks(args.dropout, row, cols, [&](Index first_col, Index end_col, const float* scales) {
#pragma omp simd
        for (Index c = first_col; c < end_col; ++c) {
          const float d = d_y[c] * scales[c - first_col];
          d_x[c] = d;
          sums[c] += d;
        }
      });
    }
  });
  if (args.d_bias) add_partial_sums(num_blocks, cols, partial_sums, cols, args.d_bias);
}

void bias_add(const Context& context, const BiasAdd& args) {
  for_rows(context, args.rows, [&](Index row) {
    const float* x = args.x.values + row * args.cols;
    float* y = args.y.values + row * args.cols;
#pragma omp simd
    for (Index c = 0; c < args.cols; ++c) y[c] = x[c] + args.bias[c];
  });
}

}  // namespace switchyard::kernels::cpu
