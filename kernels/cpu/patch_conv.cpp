#include "kernels/api/patch_conv.hpp"

#include <algorithm>

#include "kernels/cpu/activations.hpp"
#include "kernels/cpu/column_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"

namespace switchyard::kernels::cpu {

namespace {

template <typename Function>
void pool(const Context& context, const PatchPool& args) {
  const Index filters = args.filters, share = filters / args.classes;
  for_rows(context, args.rows, [&](Index row) {
    for (Index c = 0; c < args.classes; ++c) {
      float sum = 0;
      for (Index p = 0; p < args.patches; ++p) {
        const float* hidden = args.hidden + (row * args.patches + p) * filters;
#pragma omp simd reduction(+ : sum)
        for (Index j = c * share; j < (c + 1) * share; ++j) sum += Function::value(hidden[j] + args.bias[j]);
      }
      args.y[row * args.classes + c] = sum;
    }
  });
}

template <typename Function>
void pool_backward(const Context& context, const PatchPoolBackward& args) {
  const Index filters = args.filters, share = filters / args.classes, num_blocks = num_row_blocks(args.rows);
  float* partial_sums = zeroed_partial_sums(num_blocks, filters);  // (blocks, filters)
  for_row_blocks(context, args.rows, [&](Index block_idx, Index first_row, Index end_row) {
    float* sums = partial_sums + block_idx * filters;
    for (Index patch = first_row * args.patches; patch < end_row * args.patches; ++patch) {
      const float* hidden = args.hidden + patch * filters;
      float* d_hidden = args.d_hidden + patch * filters;
      for (Index c = 0; c < args.classes; ++c) {
        const float d_y = args.d_y[patch / args.patches * args.classes + c];
#pragma omp simd
        for (Index j = c * share; j < (c + 1) * share; ++j) {
          const float d = d_y * Function::slope(hidden[j] + args.bias[j]);
          d_hidden[j] = d;
          sums[j] += d;
        }
      }
    }
  });
  add_partial_sums(num_blocks, filters, partial_sums, filters, args.d_bias);
}

}  // namespace

void patch_pool(const Context& context, const PatchPool& args) {
  with_function<Gelu>(args.activation, [&](auto function) { pool<decltype(function)>(context, args); });
}

void patch_pool_backward(const Context& context, const PatchPoolBackward& args) {
  with_function<Gelu>(args.activation, [&](auto function) { pool_backward<decltype(function)>(context, args); });
}

void patch_sum(const Context& context, const PatchSum& args) {
  for_rows(context, args.rows, [&](Index row) {
    const float* x = args.x + row * args.patches * args.cols;
    float* y = args.y + row * args.cols;
    std::fill_n(y, args.cols, 0.0f);
    for (Index p = 0; p < args.patches; ++p) {
#pragma omp simd
      for (Index i = 0; i < args.cols; ++i) y[i] += x[p * args.cols + i];
    }
  });
}

}  // namespace switchyard::kernels::cpu
